// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the tracepoints that evgen_trace.h declares. C, because their macros are.
 */
#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "evgen_trace.h"
