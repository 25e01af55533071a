use super::*;
use crate::batch::{Flags, Record, Severity};

const NO_WAIT: Duration = Duration::ZERO;

fn batch(origin: &Arc<Origin>, index: u64) -> Batch {
    let mut batch = Batch::new(Arc::clone(origin), index * 10);
    let body = [b'x'; 100];
    batch.push(&Record { time: 0, flags: Flags::default(), severity: Severity::Unknown, body: &body, fields: b"" });
    batch.end = index * 10 + 10;
    batch
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin { id: 1, ..Origin::default() })
}

fn open(memory: usize, sinks: usize, directory: Option<&Path>, positions: Positions) -> (Arc<Queue>, Recovered) {
    Queue::open(Limits { memory, spool: 1 << 20 }, sinks, directory, false, positions).unwrap()
}

#[test]
fn each_sink_has_its_own_pace_and_the_slowest_counts() {
    let (queue, _) = open(1 << 20, 2, None, Positions::new());
    queue.register(1, Position::default());
    let origin = origin();
    for index in 0..3 {
        queue.push(batch(&origin, index)).unwrap();
    }
    let (mut a, mut b) = (queue.consumer(0), queue.consumer(1));
    let all = a.take(1 << 20, NO_WAIT).unwrap();
    assert_eq!(all.iter().map(|batch| batch.start).collect::<Vec<_>>(), [0, 10, 20]);
    a.acknowledge(&all);
    assert_eq!(queue.acknowledged(1).unwrap().end, 0);
    let one = b.take(1, NO_WAIT).unwrap();
    assert_eq!(one.len(), 1);
    b.acknowledge(&one);
    assert_eq!(queue.acknowledged(1).unwrap().end, 10);
    assert!(!queue.wait_until_empty(NO_WAIT));
    let rest = b.take(1 << 20, NO_WAIT).unwrap();
    b.acknowledge(&rest);
    assert_eq!(queue.acknowledged(1).unwrap().end, 30);
    assert!(queue.wait_until_empty(NO_WAIT));
    assert_eq!(queue.depth().memory_bytes, 0);
}

#[test]
fn without_a_spool_a_full_memory_makes_sources_wait() {
    let (queue, _) = open(300, 1, None, Positions::new());
    let origin = origin();
    queue.push(batch(&origin, 0)).unwrap();
    assert!(queue.wait_for_room(NO_WAIT, false));
    queue.push(batch(&origin, 1)).unwrap();
    assert!(!queue.wait_for_room(NO_WAIT, false));
    let mut sink = queue.consumer(0);
    let taken = sink.take(1, NO_WAIT).unwrap();
    sink.acknowledge(&taken);
    assert!(queue.wait_for_room(NO_WAIT, false));
}

#[test]
fn a_slow_sink_is_waited_for_unless_the_source_vanishes() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, _) = open(200, 1, Some(directory.path()), Positions::new());
    let origin = origin();
    queue.push(batch(&origin, 0)).unwrap();
    assert!(!queue.wait_for_room(NO_WAIT, false));
    assert!(queue.wait_for_room(NO_WAIT, true));
    assert!(queue.wait_for_room(STALL + Duration::from_millis(100), false), "it stands still");
    queue.push(batch(&origin, 1)).unwrap();
    assert!(queue.depth().spooling);
}

#[test]
fn a_full_memory_goes_to_disk_and_comes_back_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, _) = open(600, 1, Some(directory.path()), Positions::new());
    queue.register(1, Position::default());
    let origin = origin();
    let mut sink = queue.consumer(0);
    queue.push(batch(&origin, 0)).unwrap();
    let first = sink.take(1, NO_WAIT).unwrap();
    for index in 1..50 {
        queue.push(batch(&origin, index)).unwrap();
    }
    assert!(queue.depth().spooling);
    sink.acknowledge(&first);
    let mut starts = Vec::new();
    while starts.len() < 49 {
        let taken = sink.take(1000, NO_WAIT).unwrap();
        starts.extend(taken.iter().map(|batch| batch.start));
        sink.acknowledge(&taken);
    }
    assert_eq!(starts, (1..50).map(|index| index * 10).collect::<Vec<_>>());
    assert!(!queue.depth().spooling);
    // Segments go only when the positions that cover them are saved.
    assert!(queue.depth().spool_bytes > 0);
    let snapshot = queue.snapshot();
    assert_eq!(snapshot.positions[&1][0].end, 500);
    queue.saved(&snapshot).unwrap();
    assert_eq!(queue.depth().spool_bytes, 0);
    queue.push(batch(&origin, 50)).unwrap();
    assert_eq!(sink.take(1, NO_WAIT).unwrap()[0].start, 500);
}

#[test]
fn a_spool_that_failed_is_no_trouble_once_nothing_waits() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, _) = open(100, 1, Some(directory.path()), Positions::new());
    let origin = origin();
    // As a full disk does, this refuses every segment.
    std::fs::remove_dir_all(directory.path()).unwrap();
    queue.push(batch(&origin, 0)).unwrap();
    queue.push(batch(&origin, 1)).unwrap();
    let mut sink = queue.consumer(0);
    let first = sink.take(1, NO_WAIT).unwrap();
    sink.acknowledge(&first);
    assert!(queue.depth().spool_error.is_some(), "the other batch is in memory alone");
    let rest = sink.take(1000, NO_WAIT).unwrap();
    sink.acknowledge(&rest);
    assert_eq!((queue.depth().waiting, queue.depth().spool_error), (0, None));
}

#[test]
fn after_a_crash_the_spool_is_delivered_to_those_who_miss_it() {
    let directory = tempfile::tempdir().unwrap();
    let origin = origin();
    {
        let (queue, _) = open(1 << 20, 2, Some(directory.path()), Positions::new());
        queue.register(1, Position::default());
        for index in 0..4 {
            queue.push(batch(&origin, index)).unwrap();
        }
        assert!(queue.spill());
    }
    // The saved positions: the first sink has all but the last, the second nothing.
    let positions = Positions::from([(1, vec![Position { end: 30, mark: 0 }, Position::default()])]);
    let (queue, recovered) = open(1 << 20, 2, Some(directory.path()), positions);
    assert_eq!(recovered[&1].1.end, 40, "the source goes on behind the spool");
    let starts = |sink: usize| -> Vec<u64> {
        let mut consumer = queue.consumer(sink);
        let taken = consumer.take(1 << 20, NO_WAIT).unwrap();
        consumer.acknowledge(&taken);
        taken.iter().map(|batch| batch.start).collect()
    };
    assert_eq!(starts(0), [30]);
    assert_eq!(starts(1), [0, 10, 20, 30]);
    queue.push(batch(&origin, 4)).unwrap();
    assert_eq!((starts(0), starts(1)), (vec![40], vec![40]));
    assert!(queue.wait_until_empty(NO_WAIT));
}

#[test]
fn a_request_given_up_is_taken_again_by_the_next_consumer() {
    let (queue, _) = open(1 << 20, 1, None, Positions::new());
    queue.push(batch(&origin(), 0)).unwrap();
    queue.close();
    assert!(queue.consumer(0).take(1, NO_WAIT).is_none());
}
