//! Boots a kernel in a virtual machine and proves a livepatch in it
