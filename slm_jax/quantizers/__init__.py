"""Quantizers: continuous frames to units.

k-means     KMeansConfig, KMeansFit, fit_kmeans                 (`quantizers.kmeans`)
            rows on the devices, or in host memory              (`quantizers.kmeans_rows`)
            kmeans_plus_plus                                    (`quantizers.kmeans_start`)
Assigning   assign, nearest                                     (`quantizers.nearest`)
Classes     LinearQuantizerConfig: a classifier with a blank    (`quantizers.linear`)
Codebooks   ResidualVQConfig: one after the other               (`quantizers.residual`)
            ParallelVQConfig: side by side, split               (`quantizers.parallel`)
            FSQConfig: levels instead of a table                (`quantizers.fsq`)
            tables, their averages, codes that begin anew       (`quantizers.codebooks`)
            clusters to start from                              (`quantizers.codebook_start`)
            gradients through them                              (`quantizers.estimators`)
Treatment   PostprocessConfig, Postprocess, smoothed            (`quantizers.postprocess`)
"""
