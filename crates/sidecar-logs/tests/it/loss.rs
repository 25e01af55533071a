//! Nothing is lost: kills, rotations, truncations, outages, ends.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Receiver, World, append, eventually, to_http};

#[test]
fn an_agent_killed_again_and_again_loses_nothing() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let log = world.path("log/app.log");
    let total = 20_000;
    let writer = thread::spawn({
        let log = log.clone();
        move || {
            for start in (0..total).step_by(100) {
                append(&log, start..start + 100);
                // Renamed away in the middle of it all.
                if start % 3000 == 2900 {
                    fs::rename(&log, log.with_extension(format!("log.{start}"))).unwrap();
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    let mut agent = world.start(&config);
    while !writer.is_finished() {
        thread::sleep(Duration::from_millis(200));
        world.kill(agent);
        agent = world.start(&config);
    }
    writer.join().unwrap();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while receiver.unique() < total as usize && std::time::Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let missing = receiver.missing(0..total);
    assert!(missing.is_empty(), "{missing:?}\n{}", world.read("stderr"));
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    // At least once, and not much more.
    assert!(receiver.repeated() < total, "{} repeats", receiver.repeated());
}

#[test]
fn the_last_lines_before_the_end_arrive() {
    for round in 0..3 {
        let receiver = Receiver::start();
        let mut world = World::new();
        let config = world.configure(&to_http(receiver.address, ""));
        let agent = world.start(&config);
        append(&world.path("log/app.log"), 0..20_000);
        // A last line without its newline is a line all the same.
        let mut file = OpenOptions::new().append(true).open(world.path("log/app.log")).unwrap();
        file.write_all(b"line 00020000 and no more").unwrap();
        let status = world.terminate(agent);
        assert!(receiver.missing(0..20_001).is_empty(), "round {round}: {}", world.read("stderr"));
        assert!(status.success(), "{}", world.read("stderr"));
        let last = world.read("stderr").lines().last().unwrap().to_owned();
        assert!(last.contains("; balances"), "{last}");
        assert!(last.contains(&world.read("termination")), "{last}");
        assert_eq!(receiver.repeated(), 0);
    }
}

#[test]
fn rotation_by_rename_loses_nothing_even_if_the_old_file_is_deleted() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let agent = world.start(&config);
    let log = world.path("log/app.log");
    for round in 0..20u32 {
        append(&log, round * 500..round * 500 + 100);
        // A name that is gone before anybody looked can be followed by nobody.
        eventually("the first lines", || receiver.missing(round * 500..round * 500 + 1).is_empty());
        append(&log, round * 500 + 100..round * 500 + 500);
        let old = world.path("log/app.log.1");
        // As logrotate does: rename, and the program goes on writing to the old one for a moment.
        let mut late = OpenOptions::new().append(true).open(&log).unwrap();
        fs::rename(&log, &old).unwrap();
        thread::sleep(Duration::from_millis(25));
        late.write_all(format!("line {:08} late\n", 1_000_000 + round).as_bytes()).unwrap();
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(25));
            fs::remove_file(&old).unwrap();
        }
    }
    let status = world.terminate(agent);
    assert!(status.success(), "{}", world.read("stderr"));
    assert!(receiver.missing(0..10_000).is_empty());
    assert!(receiver.missing(1_000_000..1_000_020).is_empty());
}

#[test]
fn a_file_copied_and_truncated_is_read_to_the_end_of_its_copy() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let log = world.path("log/app.log");
    append(&log, 0..100);
    let agent = world.start(&config);
    eventually("the first lines", || receiver.unique() == 100);
    // The writer and the rotation win the race against the agent: it is stopped meanwhile.
    world.signal(agent, rustix::process::Signal::STOP);
    append(&log, 100..300);
    fs::copy(&log, world.path("log/app.log.1")).unwrap();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, 300..2000);
    world.signal(agent, rustix::process::Signal::CONT);
    eventually("every line", || receiver.unique() == 2000);
    let status = world.terminate(agent);
    assert!(status.success(), "{}", world.read("stderr"));
    assert_eq!(receiver.repeated(), 0);
}

#[test]
fn rotations_that_come_faster_than_looks_are_followed_too() {
    for copied in [true, false] {
        let receiver = Receiver::start();
        let mut world = World::new();
        let config = world.configure(&to_http(receiver.address, ""));
        let log = world.path("log/app.log");
        append(&log, 0..100);
        let agent = world.start(&config);
        eventually("the first lines", || receiver.unique() == 100);
        // Starved of the processor, as it were.
        world.signal(agent, rustix::process::Signal::STOP);
        let put_away = |number: u32, age: u32| {
            append(&log, number..number + 100);
            let old = world.path(&format!("log/app.log.{age}"));
            if copied {
                fs::copy(&log, old).unwrap();
                OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
            } else {
                fs::rename(&log, old).unwrap();
            }
            thread::sleep(Duration::from_millis(50));
        };
        put_away(100, 3);
        put_away(200, 2);
        put_away(300, 1);
        append(&log, 400..500);
        // A copy in the making is no file of its own.
        fs::write(world.path("log/app.log.0"), &fs::read(&log).unwrap()[..60]).unwrap();
        world.signal(agent, rustix::process::Signal::CONT);
        eventually("every line", || receiver.unique() == 500);
        fs::remove_file(world.path("log/app.log.0")).unwrap();
        // And again, from a file that has just been begun: nothing was read of it yet.
        if copied {
            OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
            eventually("the new beginning", || world.read("stderr").matches("\"following\"").count() >= 5);
            thread::sleep(Duration::from_millis(300));
            world.signal(agent, rustix::process::Signal::STOP);
            thread::sleep(Duration::from_millis(100));
            put_away(500, 4);
            append(&log, 600..700);
            world.signal(agent, rustix::process::Signal::CONT);
            eventually("the lines between", || receiver.unique() == 700);
        }
        world.terminate(agent);
        assert_eq!(receiver.repeated(), 0, "{}", world.read("stderr"));
    }
}

/// How a generation of the live file is put away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Away {
    Copied,
    CopiedAndPacked,
    Renamed,
    RenamedAndPacked,
}

impl Away {
    const ALL: [Away; 4] = [Away::Copied, Away::CopiedAndPacked, Away::Renamed, Away::RenamedAndPacked];

    fn put(self, live: &Path, old: &Path) {
        if matches!(self, Away::Copied | Away::CopiedAndPacked) {
            fs::copy(live, old).unwrap();
            OpenOptions::new().write(true).open(live).unwrap().set_len(0).unwrap();
        } else {
            fs::rename(live, old).unwrap();
        }
        if matches!(self, Away::CopiedAndPacked | Away::RenamedAndPacked) {
            // As gzip(1): the time of the last line is passed on, the plain file goes.
            let written = fs::metadata(old).unwrap().modified().unwrap();
            let packed = fs::File::create(format!("{}.gz", old.display())).unwrap();
            let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
            packed.write_all(&fs::read(old).unwrap()).unwrap();
            packed.finish().unwrap().set_modified(written).unwrap();
            fs::remove_file(old).unwrap();
        }
        // What a file system's clock can tell apart.
        thread::sleep(Duration::from_millis(30));
    }
}

/// Two or three generations while the agent gets no processor, or is not there; all with the same heading, longer than
/// what a file is recognised by.
#[test]
fn generations_between_two_looks_arrive_whatever_becomes_of_the_agent() {
    for (away, killed) in Away::ALL.into_iter().flat_map(|away| [(away, false), (away, true)]) {
        let receiver = Receiver::start();
        let mut world = World::new();
        let config = world.configure(&to_http(receiver.address, ""));
        let log = world.path("log/app.log");
        let write = |numbers: std::ops::Range<u32>| {
            let heading = fs::metadata(&log).map_or(0, |metadata| metadata.len()) == 0;
            let mut file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
            let heading = if heading { "one of many lines that say nothing\n".repeat(30) } else { String::new() };
            let text: String = numbers.map(|number| format!("line {number:08} of the application's log\n")).collect();
            file.write_all(format!("{heading}{text}").as_bytes()).unwrap();
        };
        let mut agent = world.start(&config);
        let (mut number, mut old) = (0, 0);
        // Begun empty, in the middle, and again: what was read before must not be mistaken for what was not.
        for generations in [2, 3, 1] {
            write(number..number + 100);
            number += 100;
            eventually("the lines before", || receiver.unique() == number as usize);
            thread::sleep(Duration::from_millis(100));
            if killed {
                world.kill(agent);
            } else {
                world.signal(agent, Signal::STOP);
            }
            for _ in 0..generations {
                write(number..number + 100);
                number += 100;
                old += 1;
                away.put(&log, &world.path(&format!("log/app.log.{old}")));
            }
            write(number..number + 100);
            number += 100;
            if killed {
                agent = world.start(&config);
            } else {
                world.signal(agent, Signal::CONT);
            }
            eventually(&format!("every line ({away:?}, killed: {killed})"), || receiver.unique() == number as usize);
        }
        let status = world.terminate(agent);
        assert!(status.success(), "{}", world.read("stderr"));
        // What was acknowledged and not yet saved comes again after a kill.
        let bound = if killed { number } else { 0 };
        assert!(receiver.repeated() <= bound, "{away:?}: {} repeats: {}", receiver.repeated(), world.read("stderr"));
    }
}

/// A file that is empty at one look, and has had another text since at the next, however soon that is: nothing but the
/// copy tells. Without the agent's part in it, because nothing can hold it up for exactly so long.
#[test]
fn a_generation_written_at_once_from_an_empty_file_is_not_skipped() {
    for killed in [false, true] {
        let receiver = Receiver::start();
        let mut world = World::new();
        let config = world.configure(&to_http(receiver.address, ""));
        let log = world.path("log/app.log");
        append(&log, 0..100);
        let mut agent = world.start(&config);
        eventually("the first lines", || receiver.unique() == 100);
        Away::Copied.put(&log, &world.path("log/app.log.0"));
        eventually("the new beginning", || world.read("stderr").matches("\"following\"").count() >= 2);
        for old in 1..20 {
            let number = old * 200;
            thread::sleep(Duration::from_millis(u64::from(old) * 7 % 50));
            if killed {
                world.kill(agent);
            } else {
                world.signal(agent, Signal::STOP);
            }
            append(&log, number..number + 100);
            let copy = world.path(&format!("log/app.log.{old}"));
            fs::copy(&log, &copy).unwrap();
            OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
            append(&log, number + 100..number + 200);
            if killed {
                agent = world.start(&config);
            } else {
                world.signal(agent, Signal::CONT);
            }
            eventually("both generations", || receiver.missing(number..number + 200).is_empty());
            Away::Copied.put(&log, &world.path(&format!("log/app.log.{}", 100 + old)));
        }
        assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    }
}

#[test]
fn a_truncation_that_took_unread_text_is_said() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let log = world.path("log/app.log");
    append(&log, 0..100);
    let agent = world.start(&config);
    eventually("the first lines", || receiver.unique() == 100);
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, 100..150);
    eventually("the lines after it", || receiver.unique() == 150);
    assert_eq!(world.terminate(agent).code(), Some(4));
    let last = world.read("stderr").lines().last().unwrap().to_owned();
    assert!(last.contains("truncated unseen 1 time(s)"), "{last}");
}

/// Lines of one length that end alike: the place where the agent stopped looks the same in the next generation.
#[test]
fn a_file_that_grew_again_over_our_place_is_not_taken_for_the_old_one() {
    let lines = |numbers: std::ops::Range<u32>| -> String {
        numbers.map(|number| format!("line {number:08} {}\n", "x".repeat(100))).collect()
    };
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let log = world.path("log/app.log");
    fs::write(&log, lines(0..100)).unwrap();
    let agent = world.start(&config);
    eventually("the first lines", || receiver.unique() == 100);
    // The agent gets no processor while all of it happens.
    world.signal(agent, Signal::STOP);
    OpenOptions::new().append(true).open(&log).unwrap().write_all(lines(100..150).as_bytes()).unwrap();
    fs::copy(&log, world.path("log/app.log.1")).unwrap();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    OpenOptions::new().append(true).open(&log).unwrap().write_all(lines(150..350).as_bytes()).unwrap();
    world.signal(agent, Signal::CONT);
    eventually("every line", || receiver.unique() == 350);
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    assert_eq!(receiver.repeated(), 0);
}

#[test]
fn what_was_rotated_while_nobody_looked_is_found_again() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let log = world.path("log/app.log");
    append(&log, 0..100);
    let first = world.start(&config);
    assert!(world.terminate(first).success());
    // Renamed with unread lines; then another file, copied, compressed and truncated with unread lines.
    append(&log, 100..200);
    fs::rename(&log, world.path("log/app.log.1")).unwrap();
    append(&log, 200..300);
    let second = world.start(&config);
    eventually("the renamed one's lines", || receiver.unique() == 300);
    assert!(world.terminate(second).success());
    append(&log, 300..400);
    let packed = fs::File::create(world.path("log/app.log.2.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    packed.write_all(&fs::read(&log).unwrap()).unwrap();
    packed.finish().unwrap();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
    append(&log, 400..500);
    let third = world.start(&config);
    eventually("the compressed one's lines", || receiver.unique() == 500);
    assert!(world.terminate(third).success(), "{}", world.read("stderr"));
    assert_eq!(receiver.repeated(), 0);
}

#[test]
fn an_outage_is_bridged_by_the_spool_within_its_bounds() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, ""));
    let text = fs::read_to_string(&config).unwrap() + "    memory: 64Ki\n    spoolMaxBytes: 2Mi\n";
    fs::write(&config, text).unwrap();
    let agent = world.start(&config);
    receiver.set_down(true);
    let log = world.path("log/app.log");
    // Three times what the spool may hold: reading waits for the rest.
    let total = 150_000;
    append(&log, 0..total);
    let spooled = || {
        let text = world.admin("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix("outrigger_logs_spool_bytes "));
        value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    eventually("a full spool", || spooled() >= 2 << 20);
    assert!(spooled() < 3 << 20);
    let verbose = world.admin("/readyz?verbose");
    assert!(verbose.starts_with("HTTP/1.1 200") && verbose.contains("[!]sink out failing"), "{verbose}");
    // The file may even go: what was read is on disk, and it is open.
    fs::remove_file(&log).unwrap();
    receiver.set_down(false);
    eventually("every line", || receiver.unique() == total as usize);
    assert_eq!(receiver.repeated(), 0);
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
}

#[test]
fn what_cannot_be_delivered_in_time_waits_on_the_spool() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let config = world.configure(&to_http(receiver.address, "drain: {reserve: 19s}\n"));
    receiver.set_down(true);
    let agent = world.start(&config);
    let log = world.path("log/app.log");
    append(&log, 0..1000);
    let status = world.terminate(agent);
    assert_eq!(status.code(), Some(4), "{}", world.read("stderr"));
    assert!(world.read("termination").contains("kept on the spool"), "{}", world.read("termination"));
    // Even the source may be gone by now.
    fs::remove_file(&log).unwrap();
    receiver.set_down(false);
    let again = world.start(&config);
    eventually("every line", || receiver.unique() == 1000);
    assert_eq!(receiver.repeated(), 0);
    world.terminate(again);
}

/// Needs root for a small file system; without, the sink's own test on /dev/full stands.
#[test]
fn a_full_disk_holds_things_up_and_loses_nothing() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let small = world.path("small");
    fs::create_dir(&small).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&small, "size=4m") else { return };
    let more = "- name: copy\n  to: {file: {path: ROOT/small/copy.log}}\n  retryCeiling: 100ms\n";
    let config = world.configure(&to_http(receiver.address, more));
    let text = fs::read_to_string(&config).unwrap();
    let state = world.path("state").display().to_string();
    let text = text.replace(&state, &small.join("state").display().to_string()) + "    memory: 64Ki\n";
    fs::write(&config, text).unwrap();
    let agent = world.start(&config);
    append(&world.path("log/app.log"), 0..1000);
    eventually("the first lines", || receiver.unique() == 1000);
    let mut filler = fs::File::create(small.join("filler")).unwrap();
    while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    receiver.set_down(true);
    append(&world.path("log/app.log"), 1000..15_000);
    eventually("the complaint", || world.read("stderr").contains("No space left on device"));
    let before = world.processor_time(agent);
    thread::sleep(Duration::from_secs(1));
    let used = world.processor_time(agent) - before;
    assert!(used < Duration::from_millis(300), "trying again without rest: {used:?}");
    // An open file keeps its room.
    drop(filler);
    fs::remove_file(small.join("filler")).unwrap();
    receiver.set_down(false);
    eventually(&format!("every line: {}", world.read("stderr")), || receiver.unique() == 15_000);
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    let copy = fs::read_to_string(small.join("copy.log")).unwrap();
    assert_eq!((copy.lines().count(), receiver.repeated()), (15_000, 0));
    assert!(copy.lines().all(|line| line.ends_with("of the application's log")), "no torn line");
}

/// A spool that is allowed more than there is must not stand in its own way.
#[test]
fn a_disk_that_the_spool_itself_has_filled_is_emptied_again() {
    let receiver = Receiver::start();
    let mut world = World::new();
    let small = world.path("small");
    fs::create_dir(&small).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&small, "size=2m") else { return };
    let config = world.configure(&to_http(receiver.address, ""));
    let text = fs::read_to_string(&config).unwrap();
    let state = world.path("state").display().to_string();
    let text = text.replace(&state, &small.join("state").display().to_string()) + "    memory: 64Ki\n";
    fs::write(&config, text).unwrap();
    let agent = world.start(&config);
    receiver.set_down(true);
    append(&world.path("log/app.log"), 0..100_000);
    eventually("a full disk", || world.admin("/readyz?verbose").contains("No space left on device"));
    receiver.set_down(false);
    eventually("every line", || receiver.unique() == 100_000);
    eventually("health", || world.admin("/readyz").starts_with("HTTP/1.1 200"));
    assert!(world.terminate(agent).success(), "{}", world.read("stderr"));
    assert_eq!(receiver.repeated(), 0);
}

struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(path: &std::path::Path, options: &str) -> Option<Mounted> {
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("none", path, "tmpfs", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .ok()?;
        Some(Mounted(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The agent in it has been ended, or is about to be.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
