// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The full-screen view: a table per device, and the verdict.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::rates::{DeviceSample, Sample, Verdict, rate, storm};
use crate::control::Nanoseconds;

/// Lines of a device beside those of its rings: two of the frame, the heading, and below the rings
/// interrupts, faults and latency.
const LINES_BESIDE: u16 = 6;
const COLUMNS: [&str; 7] = [
    "ring",
    "events/s",
    "delivered/s",
    "dropped/s",
    "full/s",
    "faulted/s",
    "quiet/s",
];
/// Vectors that are shown one by one: the busiest.
const VECTORS_SHOWN: usize = 6;

/// Draws all of `sample`, or as much of it as there is room for; the verdict always.
pub fn draw(frame: &mut Frame<'_>, sample: &Sample) {
    let [title, devices, verdict] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(verdict_line(sample), verdict);

    let (mut top, mut shown) = (devices, 0);
    for device in &sample.devices {
        let height = LINES_BESIDE + device.rings.len() as u16;
        if top.height < height {
            break;
        }
        let [area, rest] =
            Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(top);
        draw_device(frame, area, device);
        (top, shown) = (rest, shown + 1);
    }
    frame.render_widget(heading(sample, shown), title);
}

/// The first line; of the devices `shown` have room.
fn heading(sample: &Sample, shown: usize) -> Line<'static> {
    let seconds = sample.time.as_secs_f64();
    let mut line = Line::from(format!("lockstorm top  {seconds:.1} s  q ends"));
    if sample.paused {
        line.push_span("  PAUSED".fg(Color::Yellow).bold());
    }
    let devices = sample.devices.len();
    if shown < devices {
        line.push_span(format!("  {shown} of {devices} devices").dim());
    }
    line
}

fn verdict_line(sample: &Sample) -> Line<'static> {
    let (text, color) = match sample.verdict {
        Verdict::Holds { .. } => (sample.verdict.to_string(), Color::Green),
        Verdict::Broken { .. } | Verdict::BrokenBefore => (sample.verdict.to_string(), Color::Red),
    };
    let mut line = Line::from(text.fg(color).bold());
    if sample.interrupts_lost > 0 {
        let lost = format!("  {} interrupts lost by the host", sample.interrupts_lost);
        line.push_span(lost.fg(Color::Red));
    }
    line
}

fn draw_device(frame: &mut Frame<'_>, area: ratatui::layout::Rect, device: &DeviceSample) {
    let gone = if device.gone { "gone, " } else { "" };
    let storm = storm(device.storm.as_ref());
    let title = format!(" device {}: {gone}{storm} ", device.device);
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [rings, notes] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(3)]).areas(inner);
    let rows = device.rings.iter().enumerate().map(|(number, ring)| {
        let style = if !ring.adds_up {
            Style::new().fg(Color::Red)
        } else if ring.dropped > 0.0 {
            Style::new().fg(Color::Yellow)
        } else {
            Style::new()
        };
        Row::new([
            number.to_string(),
            rate(ring.events),
            rate(ring.delivered),
            rate(ring.dropped),
            rate(ring.full),
            rate(ring.faulted),
            rate(ring.quiet),
        ])
        .style(style)
    });
    let widths = [Constraint::Length(4)]
        .into_iter()
        .chain([Constraint::Length(11); COLUMNS.len() - 1]);
    let table = Table::new(rows, widths).header(Row::new(COLUMNS).bold());
    frame.render_widget(table, rings);
    let notes_text = [interrupts(device), faults(device), latency(device)];
    let notes_text = Text::from_iter(notes_text.map(Line::from));
    frame.render_widget(Paragraph::new(notes_text), notes);
}

fn interrupts(device: &DeviceSample) -> String {
    let sum = rate(device.vectors.values().sum());
    let mut vectors: Vec<_> = device.vectors.iter().collect();
    vectors.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut text = format!("interrupts/s {sum}");
    if vectors.len() > VECTORS_SHOWN {
        text += &format!(" on {} vectors, the busiest", vectors.len());
        vectors.truncate(VECTORS_SHOWN);
    }
    vectors.sort_by_key(|(vector, _)| **vector);
    for (index, (vector, count)) in vectors.into_iter().enumerate() {
        let separator = if index == 0 { ":" } else { "," };
        text += &format!("{separator} vector {vector} {}", rate(*count));
    }
    text
}

fn faults(device: &DeviceSample) -> String {
    let faults = device.faults.iter();
    let faults: Vec<_> = faults
        .map(|(fault, count)| format!("{fault} {count}"))
        .collect();
    if faults.is_empty() {
        "faults: none".to_owned()
    } else {
        format!("faults: {}", faults.join(", "))
    }
}

fn latency(device: &DeviceSample) -> String {
    let Some(latency) = &device.latency else {
        return "inject → handler: no samples".to_owned();
    };
    format!(
        "inject → handler: p50 {}, p90 {}, p99 {}, p99.9 {}, max {} of {}",
        Nanoseconds(latency.p50),
        Nanoseconds(latency.p90),
        Nanoseconds(latency.p99),
        Nanoseconds(latency.p999),
        Nanoseconds(latency.max),
        latency.count
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::control::stats::MachineStats;
    use crate::top::rates::tests::stats;

    fn drawn(before: &MachineStats, after: &MachineStats, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let sample = Sample::between(before, after, Duration::from_secs(1));
        terminal.draw(|frame| draw(frame, &sample)).unwrap();
        let text = terminal.backend().to_string();
        let lines = text.lines();
        lines
            .map(|line| line.trim_matches('"').trim_end())
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn each_device_has_a_table() {
        let expected = "\
lockstorm top  4.0 s  q ends
┌ device 0: storm 50 %, 120 events in 1.5 s ───────────────────────────────────┐
│ring events/s    delivered/s dropped/s   full/s      faulted/s   quiet/s      │
│0    60          30          20          5           10          15           │
│1    0           0           0           0           0           0            │
│interrupts/s 16: vector 0 15, vector 2 1                                      │
│faults: hang 1                                                                │
│inject → handler: p50 8.20 µs, p90 0 ns, p99 120 µs, p99.9 0 ns, max 3.40 ms o│
└──────────────────────────────────────────────────────────────────────────────┘
┌ device 1: no storm ──────────────────────────────────────────────────────────┐
│ring events/s    delivered/s dropped/s   full/s      faulted/s   quiet/s      │
│0    0           0           0           0           0           0            │
│interrupts/s 0                                                                │
│faults: none                                                                  │
│inject → handler: no samples                                                  │
└──────────────────────────────────────────────────────────────────────────────┘
law holds: 120 events, 0 unaccounted for";
        assert_eq!(drawn(&stats(1), &stats(2), 80, 17), expected);
    }

    #[test]
    fn the_verdict_is_seen_however_little_room_there_is() {
        let mut broken = stats(2);
        broken.devices[1].rings[0].generated = 1;
        broken.paused = true;
        for height in 2..40 {
            let text = drawn(&stats(1), &broken, 60, height);
            let last = text.lines().last().unwrap();
            assert!(last.starts_with("law BROKEN on device 1 ring 0"), "{text}");
            assert!(text.contains("PAUSED"), "{text}");
            let hidden = ["  0 of 2 devices", "  1 of 2 devices"];
            let hidden = hidden.map(|hidden| text.contains(hidden));
            assert_eq!(hidden, [height < 10, (10..17).contains(&height)], "{text}");
        }
        // Nor does any size at all make it panic.
        for (width, height) in [(1, 0), (1, 1), (3, 7), (200, 1), (1, 200)] {
            drawn(&stats(1), &broken, width, height);
        }
    }

    #[test]
    fn of_many_vectors_the_busiest_are_shown() {
        let mut after = stats(1);
        after.devices[0].raised = (0..2048)
            .map(|vector| (vector, u64::from(vector)))
            .collect();
        let text = drawn(&MachineStats::default(), &after, 120, 20);
        assert!(
            text.contains("2096k on 2048 vectors, the busiest: vector 2042 2042, vector 2043"),
            "{text}"
        );
    }
}
