//! A property test: whatever way a log is rotated in, and whenever it is read, each line is read once.

use super::*;

/// Numbers that are the same for the same seed (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Rotations and copies are further apart than the ticks of the file system's clock.
fn tick() {
    std::thread::sleep(Duration::from_millis(12));
}

/// A program that writes lines to a log, what rotates that, and who follows it.
struct World {
    logs: Logs,
    dice: Dice,
    /// By how it is rotated: `access.log.1` or `access-20261130.log`, beside it or in another folder.
    dated: bool,
    olddir: bool,
    writer: File,
    written: u64,
    rotated: Vec<String>,
    tail: Tail,
    lines: crate::source::lines::Lines,
    seen: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let logs = Logs::new();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (dated, olddir, linked) = (dice.roll(2) == 0, dice.roll(4) == 0, dice.roll(4) == 0);
        fs::create_dir_all(logs.path("old")).expect("made");
        fs::create_dir_all(logs.path("link")).expect("made");
        let path = if linked { logs.path("link/web.log") } else { logs.path("access.log") };
        if linked {
            std::os::unix::fs::symlink("../access.log", &path).expect("linked");
        }
        let writer = Self::open(&logs);
        let lines = crate::source::lines::Lines::new(1 << 20);
        Self {
            tail: follow(&path),
            logs,
            dice,
            dated,
            olddir,
            writer,
            written: 0,
            rotated: Vec::new(),
            lines,
            seen: Vec::new(),
        }
    }

    fn open(logs: &Logs) -> File {
        File::options().append(true).create(true).open(logs.path("access.log")).expect("opened")
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            let pad = "x".repeat(usize::try_from(self.dice.roll(120)).expect("small"));
            self.writer.write_all(format!("line {} {pad}\n", self.written).as_bytes()).expect("written");
            self.written += 1;
        }
    }

    /// Steps of the reader, until nothing new is there.
    fn read(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.tail.read(self.lines.room(), &NOBODY).expect("readable") {
                Progress::Bytes(bytes) => self.lines.filled(bytes),
                Progress::Restarted => {
                    let rest = self.lines.finish();
                    assert_eq!(rest, None, "begun within a line");
                }
                Progress::Waiting | Progress::Paused => return,
            }
            while let Some(line) = self.lines.next() {
                let crate::source::lines::Line::Whole(line) = line else { panic!("{line:?}") };
                self.seen.push(String::from_utf8_lossy(line).split(' ').nth(1).unwrap_or_default().to_owned());
            }
        }
    }

    fn restart(&mut self) {
        let Some(place) = self.tail.place(self.lines.rest()) else { return };
        let words = serde_json::to_string(&place).expect("JSON");
        self.tail = go_on(self.tail.path(), serde_json::from_str(&words).expect("a place"));
        self.lines = crate::source::lines::Lines::new(1 << 20);
    }

    /// The next name of a file that is rotated.
    fn name(&mut self) -> String {
        let dir = if self.olddir { "old/" } else { "" };
        if self.dated {
            return format!("{dir}access-2026{:04}.log", self.rotated.len());
        }
        for at in 0..self.rotated.len() {
            let from = self.rotated[at].clone();
            let end = if from.ends_with(".gz") { ".gz" } else { "" };
            let to = format!("{dir}access.log.{}{end}", self.rotated.len() - at + 1);
            self.logs.rename(&from, &to);
            self.rotated[at] = to;
        }
        format!("{dir}access.log.1")
    }

    fn rotate(&mut self) {
        tick();
        let name = self.name();
        if self.dice.roll(2) == 0 {
            fs::copy(self.logs.path("access.log"), self.logs.path(&name)).expect("copied");
            self.writer = Self::open(&self.logs);
            self.writer.set_len(0).expect("cut");
        } else {
            self.logs.rename("access.log", &name);
            let late = self.dice.roll(6);
            self.logs.write("access.log", "");
            // Until it is told the program goes on writing to the old one.
            self.write(late);
            self.writer = Self::open(&self.logs);
        }
        self.rotated.push(name);
        tick();
    }

    fn compress(&mut self) {
        let plain: Vec<usize> = (0..self.rotated.len()).filter(|at| !self.rotated[*at].ends_with(".gz")).collect();
        if let Some(at) = plain.first() {
            self.logs.compress(&self.rotated[*at]);
            self.rotated[*at].push_str(".gz");
        }
    }

    fn step(&mut self) {
        match self.dice.roll(12) {
            0..=3 => {
                let count = self.dice.roll(60);
                self.write(count);
            }
            4..=6 => {
                let steps = self.dice.roll(20);
                self.read(steps);
            }
            7 => self.restart(),
            8 | 9 => {
                self.rotate();
                if self.dice.roll(4) == 0 {
                    self.compress();
                }
            }
            10 if !self.olddir => {
                let copy = format!("access.log.2026-11-30-{}", self.written);
                tick();
                fs::copy(self.logs.path("access.log"), self.logs.path(&copy)).expect("copied");
                tick();
            }
            _ => std::thread::sleep(GRACE / 2),
        }
    }

    fn finish(&mut self) {
        self.write(1);
        let last = (self.written - 1).to_string();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut since = Instant::now();
        while since.elapsed() < GRACE * 4 && Instant::now() < deadline {
            let before = self.seen.len();
            self.read(100);
            if self.seen.len() > before || !self.seen.contains(&last) {
                since = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn no_rotation_loses_or_doubles_a_line() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let mut world = World::new(seed);
        // What has no line yet is not known again.
        world.write(1);
        world.read(10);
        (0..80).for_each(|_| world.step());
        world.finish();
        let mut seen = world.seen.clone();
        seen.sort_by_key(|line| line.parse().unwrap_or(u64::MAX));
        let wanted: Vec<String> = (0..world.written).map(|line| line.to_string()).collect();
        let missing: Vec<_> = wanted.iter().filter(|line| !seen.contains(line)).collect();
        let skipped = skipped(&world.tail);
        let doubled: Vec<_> = seen.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
        assert!(
            missing.is_empty() && doubled.is_empty(),
            "SEED={seed}: missing {missing:?}, doubled {doubled:?}, skipped {skipped}"
        );
    }
}
