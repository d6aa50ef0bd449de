/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of evgen, which show in /sys/kernel/tracing/events/evgen. trace.rs says when each
 * of them is passed. `device` is the name on its bus; a ring of -1 means the whole device.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM evgen

#if !defined(EVGEN_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define EVGEN_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(evgen_interrupt,
	TP_PROTO(const char *device, int ring, unsigned int events),
	TP_ARGS(device, ring, events),
	TP_STRUCT__entry(
		__string(device, device)
		__field(int, ring)
		__field(unsigned int, events)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->ring = ring;
		__entry->events = events;
	),
	TP_printk("%s ring=%d events=%u", __get_str(device), __entry->ring, __entry->events)
);

TRACE_EVENT(evgen_evicted,
	TP_PROTO(const char *device, unsigned int events, unsigned int early),
	TP_ARGS(device, events, early),
	TP_STRUCT__entry(
		__string(device, device)
		__field(unsigned int, events)
		__field(unsigned int, early)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->events = events;
		__entry->early = early;
	),
	TP_printk("%s events=%u early=%u", __get_str(device), __entry->events, __entry->early)
);

TRACE_EVENT(evgen_trouble,
	TP_PROTO(const char *device, int ring, const char *trouble),
	TP_ARGS(device, ring, trouble),
	TP_STRUCT__entry(
		__string(device, device)
		__field(int, ring)
		__string(trouble, trouble)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->ring = ring;
		__assign_str(trouble);
	),
	TP_printk("%s ring=%d %s", __get_str(device), __entry->ring, __get_str(trouble))
);

TRACE_EVENT(evgen_restart,
	TP_PROTO(const char *device, int ring),
	TP_ARGS(device, ring),
	TP_STRUCT__entry(
		__string(device, device)
		__field(int, ring)
	),
	TP_fast_assign(
		__assign_str(device);
		__entry->ring = ring;
	),
	TP_printk("%s ring=%d", __get_str(device), __entry->ring)
);

#endif /* EVGEN_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE evgen_trace
#include <trace/define_trace.h>
