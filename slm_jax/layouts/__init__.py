"""Text with codes: at which frame of the speech, or between which, every piece of text stands.

Said           what is said in a recording, as text ids with the frames of its words       (`layouts.said`)
Layout         what all layouts are: slots of text and frames; rows of steps, and back     (`layouts.layout`)
Beside         text in a stream of its own: padding after it, fixed, or aligned in time    (`layouts.beside`)
Interleaved    text and speech take turns in one sequence: by ratio, or by spans of words  (`layouts.interleaved`)
"""
