//! The life of an attempt: its statuses and the transitions between them that are legal.

use std::{fmt, str::FromStr};

/// `builds.status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    #[default]
    Queued,
    InProgress,
    Success,
    Failed,
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 5] = [Self::Queued, Self::InProgress, Self::Success, Self::Failed, Self::Cancelled];

    /// As the column holds it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// As `status.phase` of the custom resource shows it.
    pub const fn phase(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::InProgress => "InProgress",
            Self::Success => "Success",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }

    /// Terminal is terminal: nothing leaves these.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled)
    }

    /// Whether an attempt may go from `from` (`None`: it did not exist) to `self`.
    ///
    /// `in_progress → queued` is legal only for a claim whose Job was never created; the statement
    /// that does it checks that.
    pub const fn may_follow(self, from: Option<Self>) -> bool {
        matches!(
            (from, self),
            (None, Self::Queued)
                | (Some(Self::Queued), Self::InProgress | Self::Cancelled | Self::Failed)
                | (Some(Self::InProgress), Self::Success | Self::Failed | Self::Cancelled | Self::Queued)
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown build status {0:?}")]
pub struct UnknownStatus(pub String);

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_eight_transitions_are_legal() {
        let mut legal = Vec::new();
        for from in [None].into_iter().chain(Status::ALL.map(Some)) {
            for to in Status::ALL {
                if to.may_follow(from) {
                    legal.push(format!("{} → {to}", from.map_or("null", Status::as_str)));
                }
            }
        }
        assert_eq!(
            legal,
            [
                "null → queued",
                "queued → in_progress",
                "queued → failed",
                "queued → cancelled",
                "in_progress → queued",
                "in_progress → success",
                "in_progress → failed",
                "in_progress → cancelled",
            ]
        );
    }

    #[test]
    fn nothing_leaves_a_terminal_status() {
        for from in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
            assert!(Status::ALL.into_iter().all(|to| !to.may_follow(Some(from))), "{from}");
        }
    }
}
