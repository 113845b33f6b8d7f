//! The cache's layout, and the kernels to build for: fetch, import, list, remove
