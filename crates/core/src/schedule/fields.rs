//! Reading the five fields of a cron expression. croner reads them, and more than is meant here: nicknames, seconds,
//! words in fields that have none, fields that name no time. So each field is looked at first, and an error names it.

use croner::{
    Cron, Weekday,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    ToSpan,
    civil::{Date, date},
};

/// The days after which the calendar repeats, weekdays too: a day that is none of them never comes.
const CALENDAR: usize = 146_097;

struct Field {
    name: &'static str,
    takes: &'static str,
    words: &'static [&'static str],
    /// What may stand behind or in place of a number beside it.
    marks: &'static [char],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", takes: "from 0 to 59", words: &[], marks: &[] },
    Field { name: "hour", takes: "from 0 to 23", words: &[], marks: &[] },
    Field {
        name: "day of month",
        takes: "from 1 to 31, L for the last one, 15W for the workday nearest the 15th",
        words: &[],
        marks: &['L', 'W'],
    },
    Field {
        name: "month",
        takes: "from 1 to 12, or JAN to DEC",
        words: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        marks: &[],
    },
    Field {
        name: "day of week",
        takes: "from 0 to 7 (0 and 7 are Sunday), or SUN to SAT, 5#3 for the third Friday of the month, 5L for the last one",
        words: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        marks: &['L', '#'],
    },
];

/// # Errors
/// Which field can't be read, and what it takes.
pub(super) fn read(cron: &str) -> Result<Cron, String> {
    let parts: Vec<&str> = cron.split_ascii_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "spec.cron must have five fields, minute, hour, day of month, month and day of week, such as `0 2 * * *`; it has {}",
            parts.len()
        ));
    }
    for (at, (field, part)) in FIELDS.iter().zip(&parts).enumerate() {
        let mut alone = ["*"; FIELDS.len()];
        alone[at] = part;
        if !part.to_ascii_uppercase().split(',').all(|item| reads(field, item)) || parse(&alone.join(" ")).is_err() {
            return Err(format!(
                "spec.cron: {part:?} is no {}; it takes {}, `*`, lists such as 1,15, ranges such as 1-5 and steps such as */2",
                field.name, field.takes
            ));
        }
    }
    let cron = parse(&parts.join(" ")).map_err(|error| format!("spec.cron can't be read: {error}"))?;
    if comes(&cron) {
        Ok(cron)
    } else {
        Err("spec.cron names a day that never comes, such as February 30; change day of month or month".to_owned())
    }
}

/// Whether an item of a list is made of numbers, words and marks that this field has.
fn reads(field: &Field, item: &str) -> bool {
    let starred = item == "*" || item.starts_with("*/");
    let item = if starred { &item[1..] } else { item };
    let mut names = item.split(['-', '/']).map(|name| {
        name.split_once('#').map_or(name, |(name, nth)| {
            if field.marks.contains(&'#') && nth.parse::<u8>().is_ok() { name } else { "#" }
        })
    });
    if starred {
        names.next();
        return names.all(is_number);
    }
    names.all(|name| {
        let bare = name.trim_end_matches(|letter: char| field.marks.contains(&letter));
        let lone_mark = bare.is_empty() && field.name == "day of month" && matches!(name, "L" | "LW");
        lone_mark || is_number(bare) || field.words.contains(&bare)
    })
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse(cron: &str) -> Result<Cron, CronError> {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(cron)
}

/// Whether a day that fits ever comes: croner would look for it for a long time.
fn comes(cron: &Cron) -> bool {
    let first: Date = date(2000, 1, 1);
    first.series(1.day()).take(CALENDAR).any(|day| {
        let month = u32::from(day.month().unsigned_abs());
        let fits = cron.pattern.day_match(
            day.year().into(),
            month,
            u32::from(day.day().unsigned_abs()),
            WEEKDAYS[usize::from(day.weekday().to_sunday_zero_offset().unsigned_abs())],
        );
        cron.pattern.month_match(month).unwrap_or_default() && fits.unwrap_or_default()
    })
}

const WEEKDAYS: [Weekday; 7] = [
    Weekday::Sunday,
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
];
