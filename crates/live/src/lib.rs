//! The running system's livepatches: load, wait, unload, list
