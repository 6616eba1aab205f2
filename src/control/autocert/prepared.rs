//! From the settings to what autocert starts from: whom to trust, and what is stored of each name.

use std::sync::Arc;

use crate::config::autocert::{Autocert, TrustedCa};
use crate::config::problem::{Origin, Problem};
use crate::name::ServerName;
use crate::store::directory::Directory;
use crate::store::record::Record;
use crate::store::{Store, file};

use super::super::certified::Certified;
use super::status::Status;
use super::stored::{self, Known};
use super::transport::Transport;

/// What autocert starts from.
pub struct PreparedAutocert {
    pub settings: Autocert,
    pub store: Arc<dyn Store>,
    pub transport: Transport,
    /// PEM: what is trusted besides the system's roots, as it was read.
    pub trusted_roots: Vec<u8>,
    /// The managed names, with what the store knows of them.
    pub names: Vec<(ServerName, Known)>,
}

/// Reads what the store knows of the managed names; nothing there is changed, and nothing is asked of a CA.
///
/// # Errors
/// If no CA could be trusted.
pub fn prepare_autocert(
    settings: &Autocert,
    names: Vec<ServerName>,
    read_store: bool,
    warnings: &mut Vec<String>,
) -> Result<PreparedAutocert, Problem> {
    /// A bundle of all public roots is half of that.
    const LONGEST_ROOTS: usize = 1 << 20;
    let problem =
        |key: &str, what: String, remedy: &str| Problem::new(&Origin::Default, key, what, remedy);
    let roots = match &settings.trusted_ca {
        TrustedCa::None => Vec::new(),
        TrustedCa::Pem(pem) => pem.clone(),
        TrustedCa::File(path) => file::read(path, LONGEST_ROOTS).map_err(|error| {
            let remedy = "name a PEM file that ringgate's user may read";
            problem("autocert_trusted_ca_file", error.to_string(), remedy)
        })?,
    };
    let (transport, notes) = Transport::new(&roots, settings.proxy.clone())
        .map_err(|what| problem("autocert", what, "without roots no CA can be trusted"))?;
    warnings.extend(notes);
    if settings.on_kubernetes {
        warnings.push(format!(
            "{} is a directory of this node alone and Kubernetes is around: several replicas would each order for themselves; consider cert-manager there",
            settings.dir.display()
        ));
    }
    let store: Arc<dyn Store> = Arc::new(Directory::new(&settings.dir));
    let names = match read_store {
        true => stored_names(&*store, &settings.ca, names, warnings),
        false => names.into_iter().map(|name| nothing_known(&settings.ca, name)).collect(),
    };
    Ok(PreparedAutocert {
        settings: settings.clone(),
        store,
        transport,
        trusted_roots: roots,
        names,
    })
}

/// The names with what the store knows of them.
pub fn stored_names(
    store: &dyn Store,
    issuer: &str,
    names: Vec<ServerName>,
    warnings: &mut Vec<String>,
) -> Vec<(ServerName, Known)> {
    let mut unreadable = 0;
    let names = names.into_iter().map(|name| match stored::read(store, issuer, &name) {
        Ok(known) => (name, known),
        Err(error) => {
            unreadable += 1;
            if unreadable == 1 {
                warnings.push(format!("what autocert has stored cannot be read: {error}"));
            }
            nothing_known(issuer, name)
        }
    });
    names.collect()
}

fn nothing_known(issuer: &str, name: ServerName) -> (ServerName, Known) {
    let known = Known::nothing(Record::new(name.as_str(), issuer));
    (name, known)
}

/// What is stored of each managed name: for when no process is running to be asked.
pub fn stored_certificates(
    prepared: &PreparedAutocert,
) -> impl Iterator<Item = (Status, Option<Arc<Certified>>)> {
    prepared.names.iter().map(|(name, _)| {
        let read = stored::read(&*prepared.store, &prepared.settings.ca, name);
        let known = read
            .unwrap_or_else(|_| Known::nothing(Record::new(name.as_str(), &prepared.settings.ca)));
        let mut status = Status {
            name: name.to_string(),
            issuer: Some(prepared.settings.ca.clone()),
            next: Some("when ringgate runs".into()),
            ..Status::default()
        };
        if let Some(last) = &known.record.attempts.last {
            status.set_error(&last.what, last.remedy.as_deref(), last.at);
        }
        (status, known.certified)
    })
}
