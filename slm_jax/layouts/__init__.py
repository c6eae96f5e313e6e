"""Text with codes: at which frame of the speech, or between which, every piece of text stands.

Said           what is said in a recording, as text ids with the frames of its words       (`layouts.said`)
Layout         what all layouts are: slots of text and frames; rows of steps, and back     (`layouts.layout`)
Beside         text in a stream of its own: padding after it, fixed, or aligned in time    (`layouts.beside`)
Interleaved    text and speech take turns in one sequence: by ratio, or by spans of words  (`layouts.interleaved`)
One row        what takes turns as one row of ids, a mark before each      (`layouts.one_row`)
By time        streams of several rates sorted into one (SpiRit-LM)        (`layouts.by_time`)
"""
