//! Facts of one target kernel, read from its image and modules
