// SPDX-License-Identifier: GPL-2.0-only
/* A function that BPF programs of every kind may be attached to: it adds one */
#include "kmend_test.h"

CONSTANT(vmlinux, bpf_fentry_test1, 3)

TEST_PATCH(NULL, FUNC(bpf_fentry_test1));
