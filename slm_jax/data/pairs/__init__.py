"""Pairs of clips, a right one and a wrong one, by which speech language models are judged.

Pair      SpeechPair, clips that are read when they are wanted         (`data.pairs.pair`)
Archives  read_pairs: sWUGGY, sBLIMP, StoryCloze, SALMon as downloaded  (`data.pairs.archives`)
          with a list; by their file names                             (`data.pairs.listed`, `data.pairs.named`)
          audio below a folder, partners                               (`data.pairs.files`)
World     WorldPairs: the same tests in the world's voices             (`data.pairs.world`)
          words and sentences, right and wrong                         (`data.pairs.world_texts`)
          clips that are spoken when they are wanted                   (`data.pairs.world_clips`)
"""
