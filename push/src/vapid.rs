//! The key of the one application server that may push to an endpoint (RFC 8292 §4).

use std::{fmt, str::FromStr};

use base64::{
    Engine, alphabet, display,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD},
    },
};

/// Base64url with or without padding: senders do both.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The first byte of a point that is not compressed (SEC 1, §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VapidKeyError {
    /// The text is not base64url, or base64 of the forms that a sender may use.
    #[error("not valid base64url without padding")]
    NotBase64,
    /// The text does not decode to the 65 bytes of an uncompressed point.
    #[error("decodes to {0} bytes, expected 65")]
    WrongLength(usize),
    /// The first byte is not that of an uncompressed point.
    #[error("not an uncompressed point of P-256, whose first byte is 4")]
    NotUncompressed,
}

/// The public key of an application server: a point of P-256 in uncompressed form. Parsing does not check that the
/// point is on the curve: a point off the curve verifies no signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VapidKey([u8; VapidKey::BYTES]);

impl VapidKey {
    /// Length in bytes.
    pub const BYTES: usize = 65;

    /// Reads the bytes of a point, as stored.
    ///
    /// # Errors
    /// [`VapidKeyError`], if they are not those of an uncompressed point.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VapidKeyError> {
        let point: [u8; Self::BYTES] =
            bytes.try_into().map_err(|_| VapidKeyError::WrongLength(bytes.len()))?;
        if point[0] == UNCOMPRESSED { Ok(Self(point)) } else { Err(VapidKeyError::NotUncompressed) }
    }

    /// Parses the attribute of a `<register/>`: base64url without padding (docs/protocol.md, "VAPID").
    ///
    /// # Errors
    /// [`VapidKeyError`], for any other form, too.
    pub fn from_attribute(text: &str) -> Result<Self, VapidKeyError> {
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text).map_err(|_| VapidKeyError::NotBase64)?)
    }

    /// Returns the bytes of the point.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl FromStr for VapidKey {
    type Err = VapidKeyError;

    /// Parses the key that a sender presents, in either alphabet of base64, padded or not (docs/senders.md, "Endpoints
    /// of one application server").
    fn from_str(text: &str) -> Result<Self, VapidKeyError> {
        let text = text.replace('+', "-").replace('/', "_");
        let bytes = LENIENT.decode(text).map_err(|_| VapidKeyError::NotBase64)?;
        Self::from_bytes(&bytes)
    }
}

/// Base64url, 87 characters.
impl fmt::Display for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display::Base64Display::new(&self.0, &URL_SAFE_NO_PAD).fmt(f)
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VapidKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8292 §4.1.
    const KEY: &str =
        "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

    #[test]
    fn a_sender_writes_a_key_in_either_alphabet_padded_or_not_and_a_distributor_in_one_form() {
        let key: VapidKey = KEY.parse().unwrap();
        assert_eq!((key.to_string().as_str(), KEY.len()), (KEY, 87));
        assert_eq!(format!("{key:?}"), format!("VapidKey({KEY})"));
        let standard = KEY.replace('-', "+").replace('_', "/");
        for text in [format!("{KEY}="), format!("{standard}="), standard] {
            assert_eq!(text.parse(), Ok(key), "{text}");
            assert_eq!(VapidKey::from_attribute(&text), Err(VapidKeyError::NotBase64), "{text}");
        }
        assert_eq!(VapidKey::from_attribute(KEY), Ok(key));
    }

    #[test]
    fn what_is_no_uncompressed_point_says_why() {
        assert_eq!("".parse::<VapidKey>(), Err(VapidKeyError::WrongLength(0)));
        assert_eq!(KEY[..84].parse::<VapidKey>(), Err(VapidKeyError::WrongLength(63)));
        assert_eq!(KEY.replacen('B', "A", 1).parse::<VapidKey>(), Err(VapidKeyError::NotUncompressed));
        for text in ["%", &KEY[..86], &format!(" {KEY}"), &format!("{KEY}\n"), &format!("{KEY}==")] {
            assert_eq!(text.parse::<VapidKey>(), Err(VapidKeyError::NotBase64), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_refused(text: String) {
            let _ = (text.parse::<VapidKey>(), VapidKey::from_attribute(&text));
        }

        #[test]
        fn what_is_written_is_read(rest in prop::collection::vec(any::<u8>(), VapidKey::BYTES - 1)) {
            let key = VapidKey::from_bytes(&[&[UNCOMPRESSED], &rest[..]].concat()).unwrap();
            prop_assert_eq!(key.to_string().parse(), Ok(key));
            prop_assert_eq!(VapidKey::from_attribute(&key.to_string()), Ok(key));
        }
    }
}
