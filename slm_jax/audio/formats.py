"""Which audio files can be read, told by their suffix."""

import soundfile

BY_FORMAT = {
    "WAV": (".wav", ".wave"),
    "FLAC": (".flac",),
    "OGG": (".ogg", ".oga", ".opus"),
    "MP3": (".mp3",),
    "AIFF": (".aiff", ".aif", ".aifc"),
    "AU": (".au", ".snd"),
    "CAF": (".caf",),
    "W64": (".w64",),
    "RF64": (".rf64",),
    "NIST": (".sph",),
    "VOC": (".voc",),
}
"""Formats of libsndfile in which people keep speech, and how such files are called."""
READ = frozenset(suffix for form in BY_FORMAT.keys() & soundfile.available_formats() for suffix in BY_FORMAT[form])
"""Suffixes of files that the library at hand reads."""
_OTHERS = ".m4a .m4b .mp4 .aac .wma .amr .3gp .webm .mka .ape .wv .ra .ac3 .spx .tta .dsf .alac .mp2"
UNREAD = frozenset((*_OTHERS.split(), *(suffix for some in BY_FORMAT.values() for suffix in some))) - READ
"""Suffixes of sound that is not read: such files are counted, so that nobody misses them in silence."""
