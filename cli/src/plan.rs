//! `millrace plan`: capacity, cost per month and the first limit of the replication of a table, from its size and its
//! load ([`PlanCommand`]).
//!
//! [`capacity_model`] computes the plan, without I/O, from the prices and counts of [`crate::cost`] and the measured
//! figures of docs/benchmarks.md. [`report`] prints it. `simulation_tests` compares the model with a discrete simulation
//! of shards, event source mapping and concurrency; docs/cost.md lists where they differ.

use std::process::ExitCode;

use crate::options::refuse;
use crate::standard_output::write_output;

mod capacity_model;
mod report;
#[cfg(test)]
mod simulation_tests;

use capacity_model::{CapacityPlan, TableWorkload};

/// The largest number of items of `--items` and removals of `--expired-per-day`.
const MAX_ITEMS: f64 = 1e12;
/// The largest number of `--writes-per-second`.
const MAX_WRITES: f64 = 1e6;
/// The size of the largest item of DynamoDB in bytes.
const MAX_ITEM_BYTES: u64 = 400 * 1024;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// The arguments of `millrace plan`.
#[derive(Debug, clap::Args)]
pub(crate) struct PlanCommand {
    /// Number of items in the table, up to 1e12
    #[arg(long, value_name = "NUMBER", value_parser = items, allow_negative_numbers = true)]
    items: f64,
    /// Average size of an item in bytes, 1 to 409600
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=MAX_ITEM_BYTES))]
    item_bytes: u64,
    /// Creates, updates and deletes per second, up to 1e6; may be a fraction
    #[arg(long, value_name = "NUMBER", value_parser = writes, allow_negative_numbers = true)]
    writes_per_second: f64,
    /// Items that TTL removes per day, up to 1e12; 0 without TTL or without an archive
    #[arg(long, value_name = "NUMBER", value_parser = items, default_value = "0", allow_negative_numbers = true)]
    expired_per_day: f64,
    /// Number of DynamoDB replicas
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    replicas: u32,
    /// Output: text, or json for one JSON document on standard output
    #[arg(long, value_name = "text|json", hide_possible_values = true, default_value = "text")]
    output: PlanFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PlanFormat {
    Text,
    Json,
}

fn quantity(text: &str, most: f64, example: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && (0.0..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from 0 to {most:e}, such as {example}"))
}

fn items(text: &str) -> Result<f64, String> {
    let number = quantity(text, MAX_ITEMS, "2000000 or 2e6")?;
    if number.fract() == 0.0 { Ok(number) } else { Err("expected a whole number, such as 2000000 or 2e6".to_owned()) }
}

fn writes(text: &str) -> Result<f64, String> {
    quantity(text, MAX_WRITES, "0.5, 1000 or 1e3")
}

impl PlanCommand {
    /// Prints the plan. The exit code is 0 if the load is within every limit, 1 if it exceeds one, and 2 if the arguments
    /// contradict each other.
    pub(crate) fn run(&self) -> ExitCode {
        let workload = match self.workload() {
            Ok(workload) => workload,
            Err(refusal) => return refuse(&refusal),
        };
        let plan = CapacityPlan::new(&workload);
        let text = match self.output {
            PlanFormat::Text => report::text(&workload, &plan),
            PlanFormat::Json => format!("{}\n", report::json(&workload, &plan)),
        };
        if let Err(problem) = write_output(text) {
            return refuse(&problem);
        }
        if plan.is_within_limits() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn workload(&self) -> Result<TableWorkload, String> {
        let most_expired = self.items + self.writes_per_second * SECONDS_PER_DAY;
        if self.expired_per_day > most_expired {
            return Err(format!(
                "--expired-per-day {} is more than the table's items and a day's writes, {most_expired}: lower it, or \
                 raise --items or --writes-per-second",
                self.expired_per_day
            ));
        }
        Ok(TableWorkload {
            items: self.items,
            item_bytes: self.item_bytes,
            writes_per_second: self.writes_per_second,
            expired_per_day: self.expired_per_day,
            replicas: self.replicas,
        })
    }
}
