//! Why an attempt did not succeed: stable reasons, the stage they belong to, whose fault they are.
//!
//! The names are public: they stand in `build_results.failure_reason`, in the condition
//! `Succeeded`, in Events and in metric labels.

use std::{fmt, str::FromStr};

/// Who can mend it. Infrastructure failures are worth another attempt; the user's are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Infrastructure,
    User,
}

/// `build_results.failure_stage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Everything before the builder runs.
    Compile,
    Build,
    Push,
    Scan,
    /// What the registry holds is not what the builder reported.
    Verification,
}

impl Stage {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Build => "build",
            Self::Push => "push",
            Self::Scan => "scan",
            Self::Verification => "verification",
        }
    }
}

macro_rules! reasons {
    ($($name:ident $class:ident $stage:ident;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($name,)* }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// The stage a failure of this reason belongs to, where nothing tells more.
            pub const fn stage(self) -> Stage {
                match self { $(Self::$name => Stage::$stage,)* }
            }
        }
    };
}

reasons! {
    InvalidSpec User Compile;
    PodSecurity User Compile;
    BuilderNotAllowed User Compile;
    MethodNotAvailable User Compile;
    SecretNotFound User Compile;
    SourceAuth User Compile;
    SourceNotFound User Compile;
    RevisionNotFound User Compile;
    DockerfileNotFound User Compile;
    BuildFailed User Build;
    DetectFailed User Build;
    PushDenied User Push;
    PushFailed User Push;
    VulnerabilitiesFound User Scan;
    OutOfMemory User Build;
    Evicted Infrastructure Build;
    NodeLost Infrastructure Build;
    ImagePull Infrastructure Compile;
    Unschedulable User Compile;
    TimedOut User Build;
    QueueTimeout User Compile;
    Cancelled User Build;
    Superseded User Build;
    Deleted User Build;
    DigestMismatch User Verification;
    AgentLost Infrastructure Build;
    JobDeleted User Build;
    Internal Infrastructure Compile;
}

impl Reason {
    /// Reasons that end an attempt as `cancelled`, not as `failed`.
    pub const fn is_cancellation(self) -> bool {
        matches!(self, Self::Cancelled | Self::Superseded | Self::Deleted)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown reason {0:?}")]
pub struct UnknownReason(pub String);

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_a_camel_case_word_that_reads_back() {
        for reason in Reason::ALL {
            let text = reason.as_str();
            assert!(text.starts_with(char::is_uppercase) && text.chars().all(char::is_alphanumeric), "{text}");
            assert_eq!(text.parse(), Ok(*reason));
        }
    }
}
