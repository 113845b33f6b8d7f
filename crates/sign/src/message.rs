//! CMS messages (RFC 5652) of the one form that the kernel takes for modules: `SignedData` over content that is kept
//! elsewhere, without certificates and without signed attributes (Linux, scripts/sign-file.c, which calls OpenSSL's
//! `CMS_sign`; crypto/asymmetric_keys/pkcs7_parser.c and pkcs7_verify.c).

use crate::certificate::{Certificate, colons, plain};
use crate::error::SignError;
use crate::hash::Hash;
use crate::public_key::PublicKey;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos};
use der::asn1::{Null, OctetString, SetOfVec};
use der::oid::ObjectIdentifier;
use der::{Any, Decode, Encode};
use serde::Serialize;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// `id-signedData` (RFC 5652, 5.1).
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// `id-data` (RFC 5652, 4).
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
/// `rsaEncryption` (RFC 8017, A.1), which OpenSSL and the kernel name as the signature's algorithm.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `sha256WithRSAEncryption` and its kin (RFC 8017, A.2.4), which others name.
const RSA_WITH: [(ObjectIdentifier, Hash); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), Hash::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"), Hash::Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"), Hash::Sha512),
];
/// `ecdsa-with-SHA256` and its kin (RFC 5758, 3.2).
const ECDSA_WITH: [(ObjectIdentifier, Hash); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), Hash::Sha256),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), Hash::Sha384),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"), Hash::Sha512),
];
/// The largest message that is read, in bytes: one of a 4096 bit key has 700.
const LARGEST: usize = 1 << 20;

/// A message: one or more signatures over the same content.
pub(crate) struct Message {
    signers: Vec<Signature>,
}

/// One signature.
struct Signature {
    signer: SignerIdentifier,
    hash: Hash,
    ecdsa: bool,
    value: Vec<u8>,
}

/// Whom a signature names, and how it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignerFacts {
    /// The issuer of the signer's certificate (RFC 4514), or `None` where the key is named instead.
    pub issuer: Option<String>,
    /// The certificate's number there, in hexadecimal.
    pub serial: Option<String>,
    /// The subject key identifier of the certificate, in hexadecimal, where that is named.
    pub key_id: Option<String>,
    /// `RSA` or `ECDSA`.
    pub algorithm: &'static str,
    /// The hash.
    pub hash: Hash,
}

impl std::fmt::Display for SignerFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unknown = || "unknown".to_owned();
        match &self.key_id {
            Some(id) => write!(f, "the key {id}"),
            None => write!(
                f,
                "{}, serial {}",
                self.issuer.clone().unwrap_or_else(unknown),
                self.serial.clone().unwrap_or_else(unknown)
            ),
        }
    }
}

/// Makes the message of one signature.
pub(crate) fn encode(certificate: &Certificate, hash: Hash, value: Vec<u8>) -> der::Result<Vec<u8>> {
    let (oid, parameters) = match certificate.public_key() {
        PublicKey::Rsa(_) => (RSA, Some(Any::encode_from(&Null)?)),
        PublicKey::P256(_) | PublicKey::P384(_) => (ecdsa_with(hash), None),
    };
    let digest_alg = AlgorithmIdentifierOwned { oid: hash.oid(), parameters: None };
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(certificate.issuer_and_serial()),
        digest_alg: digest_alg.clone(),
        signed_attrs: None,
        signature_algorithm: AlgorithmIdentifierOwned { oid, parameters },
        signature: OctetString::new(value)?,
        unsigned_attrs: None,
    };
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![digest_alg])?,
        encap_content_info: EncapsulatedContentInfo { econtent_type: DATA, econtent: None },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![signer])?),
    };
    ContentInfo { content_type: SIGNED_DATA, content: Any::encode_from(&signed)? }.to_der()
}

fn ecdsa_with(hash: Hash) -> ObjectIdentifier {
    let [(sha256, _), (sha384, _), (sha512, _)] = ECDSA_WITH;
    match hash {
        Hash::Sha256 => sha256,
        Hash::Sha384 => sha384,
        Hash::Sha512 => sha512,
    }
}

impl Message {
    /// Reads a message; `what` it is, is for the error.
    pub(crate) fn decode(der: &[u8], what: &str) -> Result<Message, SignError> {
        let damaged = |why: String| SignError::Damaged { what: what.into(), why };
        if der.len() > LARGEST {
            return Err(damaged("it is larger than any signature".into()));
        }
        let no_cms = |error: der::Error| damaged(format!("it is no CMS message: {error}"));
        let info = ContentInfo::from_der(der).map_err(no_cms)?;
        if info.content_type != SIGNED_DATA {
            return Err(damaged("its CMS message is no SignedData".into()));
        }
        let signed: SignedData = info.content.decode_as().map_err(no_cms)?;
        let content = &signed.encap_content_info;
        if content.econtent_type != DATA || content.econtent.is_some() {
            return Err(damaged("its CMS message has content of its own".into()));
        }
        let unsupported = |why| SignError::Unsupported { what: what.into(), why };
        let signers: Vec<Signature> =
            signed.signer_infos.0.iter().map(signature).collect::<Result<_, _>>().map_err(unsupported)?;
        if signers.is_empty() { Err(damaged("nobody signed it".into())) } else { Ok(Message { signers }) }
    }

    /// Whom its signatures name.
    pub(crate) fn facts(&self) -> Vec<SignerFacts> {
        self.signers.iter().map(Signature::facts).collect()
    }

    /// The certificates that a signature names, with whether it is by that key over this content.
    pub(crate) fn named<'a>(
        &self,
        content: &[u8],
        certificates: &'a [Certificate],
    ) -> Vec<(&'a Certificate, bool)> {
        let mut named = Vec::new();
        for signature in &self.signers {
            let mut digest = None;
            for certificate in certificates.iter().filter(|certificate| signature.names(certificate)) {
                let digest: &Vec<u8> = digest.get_or_insert_with(|| signature.hash.digest(content));
                named.push((certificate, signature.is_by(certificate.public_key(), digest)));
            }
        }
        named
    }
}

impl Signature {
    fn names(&self, certificate: &Certificate) -> bool {
        match &self.signer {
            SignerIdentifier::IssuerAndSerialNumber(named) => *named == certificate.issuer_and_serial(),
            SignerIdentifier::SubjectKeyIdentifier(id) => certificate.key_id().as_ref() == Some(id),
        }
    }

    fn is_by(&self, key: &PublicKey, digest: &[u8]) -> bool {
        let of_its_kind = self.ecdsa != matches!(key, PublicKey::Rsa(_));
        of_its_kind && key.verifies(self.hash, digest, &self.value)
    }

    fn facts(&self) -> SignerFacts {
        let (issuer, serial, key_id) = match &self.signer {
            SignerIdentifier::IssuerAndSerialNumber(named) => {
                (Some(plain(&named.issuer.to_string())), Some(named.serial_number.to_string()), None)
            }
            SignerIdentifier::SubjectKeyIdentifier(id) => (None, None, Some(colons(id.0.as_bytes()))),
        };
        let algorithm = if self.ecdsa { "ECDSA" } else { "RSA" };
        SignerFacts { issuer, serial, key_id, algorithm, hash: self.hash }
    }
}

/// Takes one signature over, if it can be verified.
fn signature(info: &SignerInfo) -> Result<Signature, String> {
    // The kernel: "Module signature has authattrs" (pkcs7_verify.c). They would have to be verified as well.
    if info.signed_attrs.is_some() {
        return Err(
            "it has signed attributes, which the kernel does not take (`openssl cms -sign -noattr`)".into()
        );
    }
    let hash = Hash::of_oid(info.digest_alg.oid)
        .ok_or_else(|| format!("its hash {} is not known, or too weak", info.digest_alg.oid))?;
    let oid = info.signature_algorithm.oid;
    let ecdsa = ECDSA_WITH.contains(&(oid, hash));
    if !ecdsa && oid != RSA && !RSA_WITH.contains(&(oid, hash)) {
        return Err(format!("its algorithm {oid} is not known, or not for its hash"));
    }
    let value = info.signature.as_bytes().to_vec();
    Ok(Signature { signer: info.sid.clone(), hash, ecdsa, value })
}
