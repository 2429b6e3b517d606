//! The columns that a replication document declares, in a Parquet file: [`DeclaredBuilder`].
//!
//! | type of the document | Parquet | Athena |
//! | --- | --- | --- |
//! | `text`, `jsonb` | string | `string` |
//! | `numeric` | string, without an exponent | `string` |
//! | `bigint` | 64-bit integer | `bigint` |
//! | `boolean` | boolean | `boolean` |
//! | `timestamptz` | timestamp in microseconds, UTC | `timestamp` |
//! | `date` | date | `date` |
//! | `bytea` | binary | `binary` |
//! | `text[]`, `numeric[]` | list of strings | `array<string>` |
//!
//! A `numeric` is the text that PostgreSQL prints for it, and that both query engines convert to their decimal types. It
//! is text, because no decimal type stores all numbers of DynamoDB: 38 digits at an exponent from -130 to 125.
//! Athena's `decimal` has 38 digits with one scale for the whole column, and would lose or reject some of them.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, FieldRef};
use millrace_transform::columns::{ColumnDefinition, ColumnType, ColumnValue};
use time::Date;
use time::macros::date;

use super::column::{micros, utc};

/// The day from which a date counts.
const EPOCH_DAY: Date = date!(1970 - 01 - 01);

/// Returns the column as a field of the schema.
pub(super) fn field(column: &ColumnDefinition) -> Field {
    let kind = match column.kind {
        ColumnType::Text | ColumnType::FoldedText | ColumnType::Numeric | ColumnType::Json => DataType::Utf8,
        ColumnType::BigInt => DataType::Int64,
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Timestamp(_) => utc(),
        ColumnType::Date => DataType::Date32,
        ColumnType::Bytes => DataType::Binary,
        ColumnType::TextArray | ColumnType::NumericArray => DataType::List(element()),
    };
    Field::new(&column.name, kind, true)
}

/// Returns the field of a list's elements. The name is that of the Parquet specification.
fn element() -> FieldRef {
    Arc::new(Field::new("element", DataType::Utf8, true))
}

/// Returns the definition as text; two columns with the same text contain the same values.
pub(super) fn describe(column: &ColumnDefinition) -> String {
    let format = match column.kind {
        ColumnType::Timestamp(format) => format.name(),
        other => other.special_format().unwrap_or_default(),
    };
    format!("{:?} {:?} declared {} {format}", column.name, column.path.to_string(), column.kind)
}

/// A declared column whose values are being added.
pub(super) enum DeclaredBuilder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Binary(BinaryBuilder),
    List(ListBuilder<StringBuilder>),
}

impl DeclaredBuilder {
    pub(super) fn new(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Text | ColumnType::FoldedText | ColumnType::Numeric | ColumnType::Json => {
                Self::Text(StringBuilder::new())
            }
            ColumnType::BigInt => Self::Integer(Int64Builder::new()),
            ColumnType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ColumnType::Timestamp(_) => Self::Timestamp(TimestampMicrosecondBuilder::new()),
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Bytes => Self::Binary(BinaryBuilder::new()),
            ColumnType::TextArray | ColumnType::NumericArray => {
                Self::List(ListBuilder::new(StringBuilder::new()).with_field(element()))
            }
        }
    }

    /// Adds the value of a row. A value of another type than the column's is null; the reader of the columns returns
    /// none.
    pub(super) fn push(&mut self, value: Option<ColumnValue<'_>>) {
        match (self, value) {
            (Self::Text(column), Some(ColumnValue::Text(text))) => column.append_value(text),
            (Self::Text(column), Some(ColumnValue::Numeric(number))) => column.append_value(plain(&number)),
            (Self::Text(column), Some(ColumnValue::Json(json))) => column.append_value(json),
            (Self::Text(column), _) => column.append_null(),
            (Self::Integer(column), Some(ColumnValue::BigInt(number))) => column.append_value(number),
            (Self::Integer(column), _) => column.append_null(),
            (Self::Boolean(column), Some(ColumnValue::Boolean(value))) => column.append_value(value),
            (Self::Boolean(column), _) => column.append_null(),
            (Self::Timestamp(column), Some(ColumnValue::Timestamp(at))) => column.append_value(micros(at)),
            (Self::Timestamp(column), _) => column.append_null(),
            (Self::Date(column), Some(ColumnValue::Date(day))) => column.append_value(days(day)),
            (Self::Date(column), _) => column.append_null(),
            (Self::Binary(column), Some(ColumnValue::Bytes(bytes))) => column.append_value(bytes),
            (Self::Binary(column), _) => column.append_null(),
            (Self::List(column), Some(ColumnValue::TextArray(texts))) => {
                column.append_value(texts.iter().map(|text| Some(text.as_ref())));
            }
            (Self::List(column), Some(ColumnValue::NumericArray(numbers))) => {
                column.append_value(numbers.iter().map(|number| Some(plain(number))));
            }
            (Self::List(column), _) => column.append(false),
        }
    }

    /// Returns the values, and empties the column.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Integer(column) => Arc::new(column.finish()),
            Self::Boolean(column) => Arc::new(column.finish()),
            Self::Timestamp(column) => Arc::new(column.finish().with_timezone("UTC")),
            Self::Date(column) => Arc::new(column.finish()),
            Self::Binary(column) => Arc::new(column.finish()),
            Self::List(column) => Arc::new(column.finish()),
        }
    }
}

/// Returns a number in canonical format without an exponent: `25E-1` is `2.5`, and `1E2` is `100`.
fn plain(canonical: &str) -> String {
    let (sign, unsigned) = canonical.strip_prefix('-').map_or(("", canonical), |unsigned| ("-", unsigned));
    let Some((digits, Ok(power))) = unsigned.split_once('E').map(|(digits, power)| (digits, power.parse::<i64>()))
    else {
        return canonical.to_owned();
    };
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    if power >= 0 {
        return format!("{sign}{digits}{}", zeros(power));
    }
    let before_point = length.saturating_add(power);
    match usize::try_from(before_point) {
        Ok(position) if position > 0 => format!("{sign}{}.{}", &digits[..position], &digits[position..]),
        _ => format!("{sign}0.{}{digits}", zeros(-before_point)),
    }
}

/// Returns the number of days since 1970. Every date with a year of four digits fits.
fn days(day: Date) -> i32 {
    day.to_julian_day() - EPOCH_DAY.to_julian_day()
}

#[cfg(test)]
mod tests {
    use millrace_shared::number;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_number_has_no_exponent() {
        for (canonical, expected) in [
            ("0", "0"),
            ("-7", "-7"),
            ("25E-1", "2.5"),
            ("-5E-1", "-0.5"),
            ("1E-3", "0.001"),
            ("1E2", "100"),
            ("12345678901234567890123456789012345678E-3", "12345678901234567890123456789012345.678"),
            ("12345678901234567890123456789012345678E-38", "0.12345678901234567890123456789012345678"),
        ] {
            assert_eq!(plain(canonical), expected);
        }
        assert_eq!((plain("1E125").len(), plain("1E-130").len()), (126, 132));
    }

    proptest! {
        #[test]
        fn plain_number_is_the_same_number(negative: bool, digits in "[1-9][0-9]{0,37}", power in -130_i32..=88) {
            let number = format!("{}{digits}E{power}", if negative { "-" } else { "" });
            let canonical = number::canonical(&number).unwrap();
            let written = plain(&canonical);
            prop_assert!(!written.contains('E'));
            prop_assert_eq!(number::canonical(&written).unwrap(), canonical);
        }
    }
}
