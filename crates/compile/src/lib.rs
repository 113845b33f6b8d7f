//! Original and patched object of every translation unit a patch reaches
