"""What a model says of a data set: word pairs, likely mislabels, outliers."""
