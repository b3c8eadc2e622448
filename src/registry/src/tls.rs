//! TLS: whom to trust, who we are, and ureq's connector with both.
//!
//! Not ureq's own connector: that one panics over a client certificate that fits no key, and rustls' checks refuse what Docker's
//! documents tell people to make, one self-signed certificate that is server and authority at once.

use crate::credentials::{file_error, read_small};
use crate::error::{Error, Result};
use crate::settings::Config;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Makes the TLS settings of each registry; the machine's authorities are read once.
#[derive(Default)]
pub(crate) struct Trust {
    machine: OnceLock<Vec<CertificateDer<'static>>>,
}

impl Trust {
    /// The settings for one registry (`host` or `host:port`).
    pub fn of(&self, config: &Config, authority: &str, verify: bool) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let folder = folder_of(config, authority);
        let files = folder.as_deref().map(entries).transpose()?.unwrap_or_default();
        let verifier: Arc<dyn ServerCertVerifier> = match verify {
            false => Arc::new(Anything(provider.signature_verification_algorithms)),
            true => self.verifier(config, &files, &provider)?,
        };
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Invalid(format!("TLS: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let client = match client_certificate(&files, &provider)? {
            Some(key) => client.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => client.with_no_client_auth(),
        };
        Ok(Arc::new(client))
    }

    fn verifier(&self, config: &Config, files: &[PathBuf], provider: &Arc<CryptoProvider>) -> Result<Arc<Verifier>> {
        let machine = match self.machine.get() {
            Some(machine) => machine,
            None => {
                let read = machine(&config.authorities)?;
                self.machine.get_or_init(|| read)
            }
        };
        let mut roots = RootCertStore::empty();
        // The machine's bundle may have what rustls can't read; it only lacks it then.
        roots.add_parsable_certificates(machine.iter().cloned());
        let mut pinned = Vec::new();
        for path in files.iter().filter(|path| extension(path) == "crt") {
            let certificates = certificates(path)?;
            if certificates.is_empty() {
                return Err(Error::Settings { path: path.clone(), why: "has no certificate in PEM".to_owned() });
            }
            for certificate in certificates {
                // A server's own certificate need not be fit as an authority; then it counts as that server's alone.
                let _ = roots.add(certificate.clone());
                pinned.push(certificate);
            }
        }
        let algorithms = provider.signature_verification_algorithms;
        let usual = match roots.is_empty() {
            true => None,
            false => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|e| Error::Invalid(format!("TLS: {e}")))?,
            ),
        };
        Ok(Arc::new(Verifier { usual, pinned, algorithms }))
    }
}

/// The folder with a registry's own certificates, as Docker's `/etc/docker/certs.d/HOST:PORT`.
fn folder_of(config: &Config, authority: &str) -> Option<PathBuf> {
    let https = authority.strip_suffix(":443");
    let names = [Some(authority), https];
    let folders = config.certificates.iter().flat_map(|base| names.into_iter().flatten().map(|name| base.join(name)));
    folders.into_iter().find(|folder| folder.is_dir())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).map_err(file_error("read", folder))?;
    let mut files: Vec<PathBuf> = read.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.sort();
    Ok(files)
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn machine(files: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>> {
    for path in files {
        if path.exists() {
            return certificates(path);
        }
    }
    Ok(Vec::new())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read_small(path)?.unwrap_or_default();
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    read.map_err(|e| Error::Settings { path: path.to_owned(), why: format!("is no PEM file of certificates: {e}") })
}

/// `NAME.cert` with `NAME.key`, as Docker has them.
fn client_certificate(files: &[PathBuf], provider: &CryptoProvider) -> Result<Option<CertifiedKey>> {
    let Some(path) = files.iter().find(|path| extension(path) == "cert") else { return Ok(None) };
    let key = path.with_extension("key");
    let Some(bytes) = read_small(&key)? else {
        let why = format!("has no {} beside it", key.file_name().unwrap_or_default().display());
        return Err(Error::Settings { path: path.clone(), why });
    };
    let settings = |path: &Path, why: String| Error::Settings { path: path.to_owned(), why };
    let chain = certificates(path)?;
    if chain.is_empty() {
        return Err(settings(path, "has no certificate in PEM".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|e| settings(&key, format!("is no private key in PEM without a password: {e}")))?;
    let certified = CertifiedKey::from_der(chain, private, provider)
        .map_err(|e| settings(&key, format!("does not fit {}: {e}", path.display())))?;
    Ok(Some(certified))
}

/// rustls' usual checks; and a server may also show exactly a certificate that is in its folder.
#[derive(Debug)]
struct Verifier {
    usual: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let usual = self.usual.as_ref().map(|v| v.verify_server_cert(end_entity, intermediates, name, ocsp, now));
        let error = match usual {
            Some(Ok(verified)) => return Ok(verified),
            Some(Err(error)) => error,
            None => unknown,
        };
        if !self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        match validity(end_entity) {
            Some((from, to)) if (from..=to).contains(&now.as_secs()) => Ok(ServerCertVerified::assertion()),
            Some((from, _)) if now.as_secs() < from => Err(rustls::CertificateError::NotValidYet.into()),
            Some(_) => Err(rustls::CertificateError::Expired.into()),
            None => Err(rustls::CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// For an insecure registry: whoever answers; only the handshake must be consistent.
#[derive(Debug)]
struct Anything(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A certificate's validity in seconds since 1970 (RFC 5280, section 4.1).
fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut tbs, _) = element(certificate)?;
    // version is there with its tag [0] or not at all; then serialNumber, signature, issuer.
    if tbs.first() == Some(&0xa0) {
        tbs = element(tbs)?.2;
    }
    for _ in 0..3 {
        tbs = element(tbs)?.2;
    }
    let (_, validity, _) = element(tbs)?;
    let (kind, from, rest) = element(validity)?;
    let (until, to, _) = element(rest)?;
    Some((time(kind, from)?, time(until, to)?))
}

/// The first element of DER: its tag, its content, what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime (tag 23) or GeneralizedTime (tag 24), both in seconds and with `Z`.
fn time(kind: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        23 => text.split_at_checked(2).and_then(|(y, rest)| Some((y.parse::<u64>().ok()?, rest)))?,
        24 => text.split_at_checked(4).and_then(|(y, rest)| Some((y.parse::<u64>().ok()?, rest)))?,
        _ => return None,
    };
    let year = match kind {
        23 if year < 50 => 2000 + year,
        23 => 1900 + year,
        _ => year,
    };
    let part = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    crate::date::seconds(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?)
}

/// ureq's connection with our TLS on it.
pub(crate) struct Tls(pub Arc<ClientConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::Tls("the host has no valid name"))?;
        let mut connection = ClientConnection::new(self.0.clone(), name.to_owned())?;
        let mut socket = TransportAdapter::new(Box::new(transport) as Box<dyn Transport>, details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A connection inside TLS.
pub(crate) struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encrypted")
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> std::result::Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_certificates() {
        assert_eq!(time(23, b"700101000000Z"), Some(0));
        assert_eq!(time(23, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(24, b"20500101000000Z"), Some(2_524_608_000));
        for bad in [&b"700101000000"[..], b"7001010000Z", b"7x0101000000Z", b"Z", b""] {
            assert_eq!(time(23, bad), None);
        }
    }

    #[test]
    fn der_that_ends_early_is_nothing() {
        assert_eq!(element(&[0x30, 0x02, 1, 2, 9]), Some((0x30, &[1u8, 2][..], &[9u8][..])));
        for bad in [&[][..], &[0x30], &[0x30, 0x03, 1, 2], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(element(bad), None);
        }
        assert_eq!(validity(&[0x30, 0x00]), None);
    }
}
