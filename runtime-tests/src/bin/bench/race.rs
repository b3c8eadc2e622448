//! Rounds, medians and the table.

use std::fs::File;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::Result;
use crate::contender::{Contender, Sample};

/// Rounds that are run and not counted: the first one reads files from disk.
const WARM_UP: usize = 2;

/// The contenders, and what has become of the rounds so far.
pub struct Race {
    /// In the order of the table's columns.
    pub contenders: Vec<Contender>,
    /// Of a row that is quick.
    pub rounds: usize,
    /// This process's own mount namespace, to come back to.
    home: File,
    seed: u64,
    /// No contender has failed.
    pub all_well: bool,
}

impl Race {
    /// A race in the mount namespace that `home` is.
    pub fn new(contenders: Vec<Contender>, rounds: usize, home: File) -> Race {
        Race { contenders, rounds, home, seed: 1, all_well: true }
    }

    /// All rounds of one row: for each contender, its samples; none for one that failed.
    pub fn row<T>(&mut self, operation: impl Fn(&Contender) -> Result<T>, rest: Duration) -> Vec<Vec<T>> {
        self.rounds_of(self.rounds, false, operation, rest)
    }

    /// As [`Race::row`], of what the floor does not do.
    pub fn runtimes<T>(&mut self, rounds: usize, operation: impl Fn(&Contender) -> Result<T>) -> Vec<Vec<T>> {
        self.rounds_of(rounds, true, operation, Duration::ZERO)
    }

    /// As [`Race::row`], with the number of rounds, and without the floor if `above`.
    pub fn rounds_of<T>(
        &mut self,
        rounds: usize,
        above: bool,
        operation: impl Fn(&Contender) -> Result<T>,
        rest: Duration,
    ) -> Vec<Vec<T>> {
        let mut samples: Vec<Vec<T>> = self.contenders.iter().map(|_| Vec::new()).collect();
        let mut failed: Vec<bool> = self.contenders.iter().map(|contender| above && contender.is_floor()).collect();
        for round in 0..WARM_UP + rounds {
            for index in self.order() {
                if failed[index] {
                    continue;
                }
                std::thread::sleep(rest);
                match self.act(index, &operation) {
                    Ok(sample) if round >= WARM_UP => samples[index].push(sample),
                    Ok(_) => {}
                    Err(error) => {
                        self.failed(index, &error);
                        failed[index] = true;
                        samples[index].clear();
                    }
                }
            }
        }
        samples
    }

    /// Once for each, untimed.
    pub fn once(&mut self, operation: impl Fn(&Contender) -> Result<Sample>) {
        for index in 0..self.contenders.len() {
            if let Err(error) = self.act(index, &operation) {
                self.failed(index, &error);
            }
        }
    }

    /// Once for each that is not the floor: what it found, or none if it failed.
    pub fn found(&mut self, operation: impl Fn(&Contender) -> Result<f64>) -> Vec<Option<f64>> {
        let mut found = Vec::new();
        for index in 0..self.contenders.len() {
            let result = (!self.contenders[index].is_floor()).then(|| self.act(index, &operation)).transpose();
            found.push(result.unwrap_or_else(|error| {
                self.failed(index, &error);
                None
            }));
        }
        found
    }

    /// Tells a failure, which the exit status will tell as well.
    pub fn failed(&mut self, index: usize, error: &str) {
        eprintln!("bench: {}: {error}", self.contenders[index].name);
        self.all_well = false;
    }

    /// In the contender's mount namespace.
    pub fn act<T>(&self, index: usize, operation: &impl Fn(&Contender) -> Result<T>) -> Result<T> {
        let contender = &self.contenders[index];
        let Some(namespace) = &contender.namespace else { return operation(contender) };
        setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|error| format!("setns: {error}"))?;
        let result = operation(contender);
        setns(&self.home, CloneFlags::CLONE_NEWNS).map_err(|error| format!("setns back: {error}"))?;
        result
    }

    /// A shuffle: after whom a contender runs must not be the same in each round, for the end of a network namespace
    /// goes on in the background.
    fn order(&mut self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.contenders.len()).collect();
        for last in (1..order.len()).rev() {
            // Knuth's linear congruential generator (MMIX); its high bits are the good ones.
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (self.seed >> 33) as usize % (last + 1));
        }
        order
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.contenders.iter().position(|contender| contender.name == name)
    }

    /// The others that rrt is to be compared with, if it takes part.
    fn rivals(&self) -> impl Iterator<Item = usize> {
        let rrt = self.index("rrt");
        (0..self.contenders.len()).filter(move |&index| rrt.is_some_and(|rrt| rrt != index))
    }

    /// The names of the columns.
    pub fn print_head(&self) {
        print!("{:<28}", format!("median of {}", self.rounds));
        self.contenders.iter().for_each(|contender| print!("{:>12}", contender.name));
        self.rivals().for_each(|index| print!("{:>12}", format!("rrt/{}", self.contenders[index].name)));
        println!();
    }

    /// A row of times.
    pub fn print_times(&self, what: &str, row: &[Vec<Sample>]) {
        self.print(what, "ms", &median_of(row, |sample| sample.time.as_secs_f64() * 1e3));
    }

    /// A row of figures and their ratios.
    pub fn print(&self, what: &str, unit: &str, medians: &[Option<f64>]) {
        print!("{what:<28}");
        for median in medians {
            print!("{:>12}", median.map_or("-".into(), |value| format!("{value:.2} {unit}")));
        }
        for rival in self.rivals() {
            let own = self.index("rrt").and_then(|rrt| medians[rrt]);
            let ratio = own.zip(medians[rival]).map_or("-".into(), |(own, other)| format!("{:.2}", own / other));
            print!("{ratio:>12}");
        }
        println!();
    }
}

/// The median of each contender's samples.
pub fn median_of<T>(row: &[Vec<T>], value: impl Fn(&T) -> f64) -> Vec<Option<f64>> {
    row.iter()
        .map(|samples| {
            let mut values: Vec<f64> = samples.iter().map(&value).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        })
        .collect()
}
