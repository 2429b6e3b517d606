//! The statement that makes the Parquet files of a table a table of Athena: [`AthenaTable`].

use std::fmt;

use arrow_schema::DataType;

use super::{PARQUET, ParquetSchema};

/// The first day of the partitions, as in the template's tables.
const FIRST_DAY: &str = "2026-01-01";

/// A table of Athena over the Parquet files of a source table. Its text is the statement that creates it, in the
/// dialect of Athena's DDL.
///
/// The names are quoted, so they can be any text; the partitions are computed from the query, so no crawler runs.
#[derive(Debug, Clone)]
pub struct AthenaTable<'a> {
    /// The Glue database.
    pub database: &'a str,
    /// The name of the table that is created.
    pub name: &'a str,
    /// The archive bucket.
    pub bucket: &'a str,
    /// The source table, whose name is in the keys of the files.
    pub source_table: &'a str,
    /// The columns of the files.
    pub schema: &'a ParquetSchema,
}

impl ParquetSchema {
    /// Returns the name and the type of each column as Glue and Athena have them.
    #[must_use]
    pub fn athena_columns(&self) -> Vec<(String, &'static str)> {
        let kind = |kind: &DataType| match kind {
            DataType::Int64 => "bigint",
            DataType::Boolean => "boolean",
            DataType::Binary => "binary",
            DataType::Date32 => "date",
            DataType::Timestamp(..) => "timestamp",
            DataType::List(_) => "array<string>",
            _ => "string",
        };
        self.arrow.fields().iter().map(|field| (field.name().clone(), kind(field.data_type()))).collect()
    }
}

impl fmt::Display for AthenaTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |text: &str| format!("`{}`", text.replace('`', "``"));
        let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let location = format!("s3://{}/{PARQUET}{}/", self.bucket, self.source_table);
        writeln!(f, "CREATE EXTERNAL TABLE {}.{} (", name(self.database), name(self.name))?;
        let columns = self.schema.athena_columns();
        for (index, (column, kind)) in columns.iter().enumerate() {
            writeln!(f, "  {} {kind}{}", name(column), if index + 1 < columns.len() { "," } else { "" })?;
        }
        writeln!(f, ")\nPARTITIONED BY (`dt` string)\nSTORED AS PARQUET\nLOCATION {}", text(&location))?;
        writeln!(f, "TBLPROPERTIES (")?;
        for (property, value) in [
            ("projection.enabled", "true"),
            ("projection.dt.type", "date"),
            ("projection.dt.format", "yyyy-MM-dd"),
            ("projection.dt.range", &format!("{FIRST_DAY},NOW")),
            ("projection.dt.interval", "1"),
            ("projection.dt.interval.unit", "DAYS"),
        ] {
            writeln!(f, "  {} = {},", text(property), text(value))?;
        }
        writeln!(f, "  'storage.location.template' = {}\n);", text(&format!("{location}dt=${{dt}}/")))
    }
}
