"""Quantizers: continuous frames to units.

k-means     KMeansConfig, KMeansFit, fit_kmeans                 (`quantizers.kmeans`)
            rows on the devices, or in host memory              (`quantizers.kmeans_rows`)
            kmeans_plus_plus                                    (`quantizers.kmeans_start`)
Assigning   assign, nearest                                     (`quantizers.nearest`)
Treatment   PostprocessConfig, Postprocess, smoothed            (`quantizers.postprocess`)
"""
