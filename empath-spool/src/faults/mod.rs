//! The spool on a disk that fails, fills up, stops and loses what was not synced.

use std::{
    any::Any,
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use runs::Counts;

mod chance;
mod content;
mod damaged;
mod disk;
mod fate;
mod file;
mod found;
mod full;
mod machine;
mod model;
mod names;
mod numbers;
mod random;
mod runs;
mod state;
mod stops;
mod unreadable;
mod workload;

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

/// Does something for each number, on all processors; returns what went wrong.
fn each(numbers: Range<u64>, job: impl Fn(u64) -> Result<(), String> + Sync) -> Vec<String> {
    const ENOUGH: usize = 5;
    let (next, failures) = (AtomicU64::new(numbers.start), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= numbers.end || failures.lock().unwrap().len() >= ENOUGH {
                return;
            }
            let done = catch_unwind(AssertUnwindSafe(|| job(number)));
            let done = done.unwrap_or_else(|panic| Err(format!("panic: {}", message(&*panic))));
            if let Err(failure) = done {
                failures.lock().unwrap().push(format!("{number}: {failure}"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?")
}

#[test]
fn random_schedules_of_work_failures_and_stops_lose_and_invent_nothing() {
    if let Some(seed) = number("FAULT_SEED") {
        let (outcome, trace) = random::run(seed, true);
        let counts = outcome.unwrap_or_else(|failure| panic!("{}\n{failure}", trace.join("\n")));
        println!("{counts:?}");
        return;
    }
    let (first, seeds) = (number("FAULT_FIRST").unwrap_or(0), number("FAULT_SEEDS").unwrap_or(500));
    let total = Mutex::new(Counts::default());
    let failures = each(first..first + seeds, |seed| {
        let counts = random::run(seed, false).0?;
        let mut total = total.lock().unwrap();
        *total = *total + counts;
        Ok(())
    });
    println!("{seeds} runs: {:?}", total.into_inner().unwrap());
    assert!(failures.is_empty(), "FAULT_SEED=n shows one of these:\n{}", failures.join("\n"));
}

#[test]
fn a_stop_at_every_operation_loses_and_invents_nothing() {
    let (points, trace, [compacted, condensed]) = stops::points().unwrap();
    assert!(compacted > 0 && condensed > 0, "the course lacks compaction: {compacted}, {condensed}");
    for feature in
        ["create /mail/spool/large/", ".spare /mail/spool/journal/", ".seg /mail/spool/journal/", "remove "]
    {
        assert!(trace.iter().any(|operation| operation.contains(feature)), "the course lacks {feature}");
    }
    let losses = number("FAULT_LOSSES").unwrap_or(2);
    let stride = number("FAULT_STRIDE").map_or(31, |stride| usize::try_from(stride).unwrap_or(1));
    let starts = AtomicU64::new(0);
    let failures = each(0..points.len() as u64, |number| {
        let point = points[usize::try_from(number).unwrap_or(0)];
        let done =
            stops::at(point, losses, stride).map_err(|failure| format!("stopped at {point}: {failure}"))?;
        starts.fetch_add(done, Relaxed);
        Ok(())
    });
    println!("{} operations of {} stopped at, {starts:?} starts after it", points.len(), trace.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_full_disk_takes_outcomes_and_then_messages_again() {
    let failures = each(0..100, |number| {
        let space = 2 * 8192 + usize::try_from(number).unwrap_or(0) * 500;
        full::filled(space).map_err(|failure| format!("{space} octets: {failure}"))
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_reserve_takes_outcomes_when_the_disk_has_no_block_left() {
    full::to_the_last_block(40).unwrap();
}

#[test]
fn a_file_that_the_disk_has_no_space_for_is_not_tried_for_with_every_commit() {
    let tries = full::spares_in_vain().unwrap();
    assert!((1..5).contains(&tries), "{tries}");
}

#[test]
fn nothing_is_removed_because_of_what_a_start_found_and_could_not_make_durable() {
    let unsettled = AtomicU64::new(0);
    let failures = each(0..300, |seed| {
        unsettled.fetch_add(u64::from(stops::removing(seed)?), Relaxed);
        Ok(())
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(unsettled.load(Relaxed) > 100, "{unsettled:?} starts did not settle what they found");
}

#[test]
fn what_a_start_found_and_could_not_make_durable_can_be_read() {
    let unsettled = AtomicU64::new(0);
    let failures = each(0..300, |seed| {
        unsettled.fetch_add(u64::from(stops::reading(seed)?), Relaxed);
        Ok(())
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(unsettled.load(Relaxed) > 100, "{unsettled:?} starts did not settle what they found");
}

#[test]
fn a_segment_whose_damage_is_copied_does_not_go_before_the_start_is_settled() {
    damaged::copied_unsettled().unwrap();
}

#[test]
fn progress_behind_damage_is_not_condensed_away() {
    damaged::condensed().unwrap();
}

#[test]
fn what_a_disk_refuses_to_read_is_there_when_it_reads_again() {
    let (first, seeds) = (number("FAULT_FIRST").unwrap_or(0), number("FAULT_SEEDS").unwrap_or(500));
    let failures = each(first..first + seeds, unreadable::run);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn compaction_goes_on_by_itself_when_the_disk_reads_again() {
    unreadable::compacted_later().unwrap();
}

#[test]
fn a_failure_of_any_operation_costs_no_more_than_what_is_refused() {
    let (points, ..) = stops::points().unwrap();
    let failures = each(0..points.len() as u64, |number| {
        let point = points[usize::try_from(number).unwrap_or(0)];
        stops::failing(point).map_err(|failure| format!("failed at {point}: {failure}"))
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
