//! Whether what claims to come from a Git host was signed with the webhook's secret. What is compared is always the
//! raw body, before anything has read it; the signature is decoded to bytes, must have the length a signature has, and
//! is compared in constant time. Everything else is no signature, for whatever reason: a sender learns none.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{
        GeneralPurpose,
        general_purpose::{GeneralPurposeConfig, STANDARD as BASE64},
    },
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Of HMAC-SHA256.
const BYTES: usize = 32;
/// How far a sender's clock may be from ours, by Standard Webhooks, in seconds.
const TOLERANCE: i64 = 300;
/// What the secrets of Standard Webhooks begin with; what follows is base64.
const STANDARD_SECRET: &str = "whsec_";
pub const STANDARD_ID: &str = "webhook-id";
pub const STANDARD_TIMESTAMP: &str = "webhook-timestamp";
pub const STANDARD_SIGNATURE: &str = "webhook-signature";

/// How a provider signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme<'a> {
    /// A header that holds the HMAC-SHA256 of the body, behind a prefix.
    Hmac { header: &'a str, prefix: &'a str, encoding: Encoding },
    /// A header that holds the secret itself; where the secret is one of Standard Webhooks, that and nothing less.
    Token { header: &'a str },
    /// <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>
    Standard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

/// The headers of a request, as far as signatures need them.
pub trait Headers {
    /// Every value of the header of this name, in whatever case it was sent.
    fn values(&self, name: &str) -> Vec<&[u8]>;
}

/// Exactly one value, as text.
pub fn single<'a>(headers: &'a impl Headers, name: &str) -> Option<&'a str> {
    match headers.values(name)[..] {
        [value] => std::str::from_utf8(value).ok(),
        _ => None,
    }
}

/// Why nothing can be signed or verified with a secret: the owner's to mend, and not told to a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretProblem {
    #[error("is empty: anybody could sign with it")]
    Empty,
    #[error("is no secret of Standard Webhooks: whsec_ and base64")]
    Encoding,
}

/// Whether one of these secrets has signed the body: the current one, or the one it has replaced.
///
/// # Errors
/// Where a secret is empty, or can't be used and no other has signed.
pub fn verify(
    scheme: Scheme<'_>,
    headers: &impl Headers,
    body: &[u8],
    secrets: &[&[u8]],
    now: i64,
) -> Result<bool, SecretProblem> {
    if secrets.iter().any(|secret| secret.is_empty()) {
        return Err(SecretProblem::Empty);
    }
    let (mut verified, mut problem) = (false, None);
    for secret in secrets {
        // Each secret says itself how it signs, and never the sender: none is taken in a weaker way.
        let is_standard = match scheme {
            Scheme::Standard => true,
            Scheme::Token { .. } => secret.starts_with(STANDARD_SECRET.as_bytes()),
            Scheme::Hmac { .. } => false,
        };
        verified |= match scheme {
            _ if is_standard => match standard_key(secret) {
                Ok(key) => verify_standard(headers, body, &key, now),
                Err(unusable) => {
                    problem = Some(unusable);
                    false
                }
            },
            Scheme::Hmac { header, prefix, encoding } => {
                let sent = single(headers, header).and_then(|value| value.strip_prefix(prefix));
                sent.and_then(|sent| decode(sent, encoding)).is_some_and(|sent| is_hmac(&sent, secret, &[body]))
            }
            Scheme::Token { header } => single(headers, header).is_some_and(|sent| is_same(sent.as_bytes(), secret)),
            Scheme::Standard => false,
        };
    }
    problem.filter(|_| !verified).map_or(Ok(verified), Err)
}

/// The signature of a message by Standard Webhooks, as its header holds it.
///
/// # Errors
/// Where the secret can't be used.
pub fn sign(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> Result<String, SecretProblem> {
    let key = standard_key(secret)?;
    let timestamp = timestamp.to_string();
    let signature = hmac(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]).finalize().into_bytes();
    Ok(format!("v1,{}", BASE64.encode(signature)))
}

fn verify_standard(headers: &impl Headers, body: &[u8], key: &[u8], now: i64) -> bool {
    let (Some(id), Some(timestamp), Some(signatures)) =
        (single(headers, STANDARD_ID), single(headers, STANDARD_TIMESTAMP), single(headers, STANDARD_SIGNATURE))
    else {
        return false;
    };
    let is_recent = timestamp.parse::<i64>().is_ok_and(|sent| now.abs_diff(sent) <= TOLERANCE.unsigned_abs());
    let message: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    // A sender that changes its secret signs with both.
    let is_signed = signatures.split(' ').any(|signature| {
        let sent = signature.strip_prefix("v1,").and_then(|sent| decode(sent, Encoding::Base64));
        sent.is_some_and(|sent| is_hmac(&sent, key, &message))
    });
    is_recent && is_signed
}

/// The bytes of a secret of Standard Webhooks. As in its own libraries the prefix may be missing.
fn standard_key(secret: &[u8]) -> Result<Vec<u8>, SecretProblem> {
    /// Secrets are written with padding and without.
    const EITHER: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    let text = secret.strip_prefix(STANDARD_SECRET.as_bytes()).unwrap_or(secret);
    let key = EITHER.decode(text).map_err(|_| SecretProblem::Encoding)?;
    if key.is_empty() { Err(SecretProblem::Empty) } else { Ok(key) }
}

fn decode(text: &str, encoding: Encoding) -> Option<[u8; BYTES]> {
    let bytes = match encoding {
        Encoding::Hex => hex::decode(text).ok(),
        Encoding::Base64 => BASE64.decode(text).ok(),
    };
    bytes?.try_into().ok()
}

fn is_hmac(sent: &[u8; BYTES], key: &[u8], message: &[&[u8]]) -> bool {
    hmac(key, message).verify_slice(sent).is_ok()
}

fn hmac(key: &[u8], message: &[&[u8]]) -> Hmac<Sha256> {
    // An HMAC takes keys of any length: longer ones are hashed first, which is done here, since the type can't say it.
    let hashed;
    let key = if key.len() > 64 {
        hashed = Sha256::digest(key);
        &hashed[..]
    } else {
        key
    };
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    for part in message {
        mac.update(part);
    }
    mac
}

/// Of two texts of any length, in a time that tells neither.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    Sha256::digest(one).ct_eq(&Sha256::digest(other)).into()
}

#[cfg(test)]
mod tests;
