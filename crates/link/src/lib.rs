//! One livepatch module from the changed functions, their relocations and the patch table
