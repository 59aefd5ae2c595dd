//! What a request says in its path and its query: every value is checked before anything is done with
//! it, and what is wrong is named. A parameter that is not known is refused, so that a misspelt filter
//! never gives more than was asked for.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// The query, of which each parameter is taken once.
pub struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        query.map(|Query(pairs)| Self(pairs)).map_err(|_| refused("the query", "name=value pairs in UTF-8"))
    }
}

impl Parameters {
    /// The value of `name`, where it is given; `what` says what it must be.
    pub fn take<T: FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>, Refusal> {
        let Some(index) = self.0.iter().position(|(found, _)| found == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(index);
        value.parse().map(Some).map_err(|_| refused(name, what))
    }

    /// The same for a number from `least` to `most`.
    pub fn take_number(&mut self, name: &str, least: i64, most: i64) -> Result<Option<i64>, Refusal> {
        let what = format!("a whole number from {least} to {most}");
        match self.take::<i64>(name, &what)? {
            Some(number) if !(least..=most).contains(&number) => Err(refused(name, &what)),
            number => Ok(number),
        }
    }

    /// The same for a name of the cluster.
    pub fn take_name(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        self.take(name, NAME)?.map(|value| named(name, value)).transpose()
    }

    /// `run` and `attempt`.
    pub fn take_attempt(&mut self) -> Result<Which, Refusal> {
        let mut number = |name| {
            let number = self.take_number(name, 1, i64::from(i32::MAX))?;
            Ok::<_, Refusal>(number.and_then(|number| i32::try_from(number).ok()))
        };
        Ok(Which { run: number("run")?, attempt: number("attempt")? })
    }

    /// Nothing is left: what was not taken is not known, or was given twice.
    pub fn end(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(64).collect();
                Err(Refusal::Parameter(format!("parameter {name:?} is not known here, or is given twice")))
            }
        }
    }
}

/// Which of a Build's attempts; the newest where it does not say.
#[derive(Clone, Copy, Debug)]
pub struct Which {
    pub run: Option<i32>,
    pub attempt: Option<i32>,
}

fn refused(name: &str, what: &str) -> Refusal {
    Refusal::Parameter(format!("parameter {name} must be {what}"))
}

const NAME: &str = "a name of at most 253 lower case letters, digits, - and .";

/// A name as Kubernetes has them (RFC 1123).
fn named(parameter: &str, value: String) -> Result<String, Refusal> {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let ends_well = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = value.as_bytes();
    let is_name = value.len() <= 253
        && bytes.iter().copied().all(inside)
        && ends_well(bytes.first().copied())
        && ends_well(bytes.last().copied())
        && !value.contains("..");
    if is_name { Ok(value) } else { Err(refused(parameter, NAME)) }
}

/// The part of a path that names a namespace.
pub struct Namespace(pub String);

/// The parts of a path that name a Build.
pub struct Named {
    pub namespace: String,
    pub name: String,
}

/// The part of a path that is `builds.id`.
pub struct Id(pub uuid::Uuid);

async fn path<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, Refusal> {
    let path = Path::<T>::from_request_parts(parts, state).await;
    path.map(|Path(values)| values).map_err(|_| Refusal::Parameter("the path must be UTF-8".to_owned()))
}

impl<S: Send + Sync> FromRequestParts<S> for Namespace {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Ok(Self(named("namespace", path(parts, state).await?)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let (namespace, name): (String, String) = path(parts, state).await?;
        Ok(Self { namespace: named("namespace", namespace)?, name: named("name", name)? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let id: String = path(parts, state).await?;
        id.parse().map(Self).map_err(|_| refused("id", "a UUID"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        Parameters(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_parameter_that_is_wrong_unknown_or_given_twice_is_named() {
        for (name, value) in
            [("run", "0"), ("run", "-1"), ("run", "x"), ("run", ""), ("run", "99999999999999999999"), ("run", "1 ")]
        {
            let refusal = parameters(&[(name, value)]).take_number("run", 1, 10).unwrap_err();
            assert_eq!(refusal.to_string(), "parameter run must be a whole number from 1 to 10", "{value:?}");
        }
        let mut twice = parameters(&[("run", "1"), ("run", "2")]);
        assert_eq!(twice.take_number("run", 1, 10).unwrap(), Some(1));
        assert!(twice.end().unwrap_err().to_string().contains("\"run\""));
        let unknown = parameters(&[("stauts", "failed")]).end().unwrap_err();
        assert_eq!(unknown.to_string(), "parameter \"stauts\" is not known here, or is given twice");
    }

    #[test]
    fn only_what_can_be_a_name_in_the_cluster_is_taken_for_one() {
        for good in ["a", "web", "team-a", "a.b-c.1", "0", &"a".repeat(253)] {
            assert_eq!(named("name", good.to_owned()).unwrap(), good);
        }
        for bad in ["", "..", "a..b", "-a", "a-", ".a", "A", "a/b", "a\0", "é", "a b", "a%2f", "a'", &"a".repeat(254)]
        {
            let refusal = named("name", bad.to_owned()).unwrap_err();
            assert!(refusal.to_string().starts_with("parameter name must be"), "{bad:?}");
        }
    }
}
