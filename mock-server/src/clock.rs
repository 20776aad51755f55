//! The emulator's clock: the system's, plus what tests let it jump ahead, and the forms of time on the wire.
use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Time since 1970-01-01T00:00:00Z.
pub(crate) type Instant = Duration;

/// A clock that can be moved ahead.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead: Mutex<Duration>,
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        let real = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        real + *crate::sync::lock(&self.ahead)
    }

    pub(crate) fn advance(&self, by: Duration) {
        *crate::sync::lock(&self.ahead) += by;
    }
}

/// Broken-down UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Proleptic Gregorian calendar, counted in eras of 400 years that begin on 1 March.
    fn new(at: Instant) -> Self {
        let seconds = at.as_secs();
        let days = seconds / 86_400;
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            weekday: (days + 4) % 7,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

/// As Resource Manager writes it: seven fraction digits and an offset.
pub(crate) fn iso(at: Instant) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = Civil::new(at);
    let ticks = at.subsec_nanos() / 100;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ticks:07}+00:00")
}

/// As Entra ID writes it: `2026-01-31 10:20:30Z`.
pub(crate) fn entra(at: Instant) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = Civil::new(at);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Reads the form of HTTP headers.
pub(crate) fn parse_http_date(text: &str) -> Option<Instant> {
    let (_weekday, rest) = text.split_once(", ")?;
    let parts: Vec<&str> = rest.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = parts[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|known| *known == month)?;
    at(
        year.parse().ok()?,
        u64::try_from(month).ok()? + 1,
        day.parse().ok()?,
        [
            hour.parse().ok()?,
            minute.parse().ok()?,
            second.parse().ok()?,
        ],
    )
}

/// Reads the forms that shared access signatures allow, in UTC: `2026-01-31`, `2026-01-31T10:20Z`, and with seconds and a
/// fraction of them, which does not count.
pub(crate) fn parse_iso(text: &str) -> Option<Instant> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00"),
    };
    let numbers = |text: &str, by| -> Option<Vec<u64>> {
        text.split(by).map(|part| part.parse().ok()).collect()
    };
    let whole = time
        .split_once('.')
        .map_or(time, |(whole, _fraction)| whole);
    let [year, month, day] = numbers(date, '-')?[..] else {
        return None;
    };
    match numbers(whole, ':')?[..] {
        [hour, minute] => at(year, month, day, [hour, minute, 0]),
        [hour, minute, second] => at(year, month, day, [hour, minute, second]),
        _ => None,
    }
}

/// The inverse of [`Civil::new`].
fn at(year: u64, month: u64, day: u64, [hour, minute, second]: [u64; 3]) -> Option<Instant> {
    let valid = (1970..10_000).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !valid {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    Some(Duration::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

/// As HTTP headers carry it: `Sat, 31 Jan 2026 10:20:30 GMT`.
pub(crate) fn http_date(at: Instant) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    let Civil {
        year,
        month,
        day,
        weekday,
        hour,
        minute,
        second,
    } = Civil::new(at);
    let pick = |names: &[&'static str], index: u64| {
        names[usize::try_from(index).unwrap_or(0) % names.len()]
    };
    let (weekday, month) = (pick(&DAYS, weekday), pick(&MONTHS, month - 1));
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let at = Duration::new(1_709_210_096, 123_456_700);
        assert_eq!(iso(at), "2024-02-29T12:34:56.1234567+00:00");
        assert_eq!(http_date(at), "Thu, 29 Feb 2024 12:34:56 GMT");
        for seconds in [0, 951_782_400, 1_709_210_096, 1_798_761_599, 4_102_444_799] {
            let at = Duration::from_secs(seconds);
            assert_eq!(parse_http_date(&http_date(at)), Some(at));
            let iso = iso(at).replace("+00:00", "Z");
            assert_eq!(parse_iso(&iso), Some(at), "{iso}");
        }
        assert_eq!(parse_iso("2026-13-01"), None);
        assert_eq!(entra(Duration::from_secs(0)), "1970-01-01 00:00:00Z");
        assert_eq!(
            entra(Duration::from_secs(1_798_761_599)),
            "2026-12-31 23:59:59Z"
        );
    }
}
