"""Quantizers: continuous frames to units.

k-means     KMeansConfig, KMeansFit, fit_kmeans                 (`quantizers.kmeans`)
            kmeans_plus_plus                                    (`quantizers.kmeans_start`)
Assigning   assign, nearest                                     (`quantizers.nearest`)
Treatment   PostprocessConfig, Postprocess, smoothed            (`quantizers.postprocess`)
"""
