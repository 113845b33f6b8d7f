// SPDX-License-Identifier: GPL-2.0-only
/* Takes the change of such a number over */
#define VERSION 3
#include "kmend_state.h"
