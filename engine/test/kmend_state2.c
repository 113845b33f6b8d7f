// SPDX-License-Identifier: GPL-2.0-only
/* Changes a number of the system's */
#define VERSION 2
#include "kmend_state.h"
