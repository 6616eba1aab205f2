//! From the settings to what autocert starts from: whom to trust, and what is stored of each name.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crate::config::autocert::{Autocert, IssuerConfig, TrustedCa};
use crate::config::problem::{Origin, Problem};
use crate::name::ServerName;
use crate::store::directory::Directory;
use crate::store::{Store, file, layout};

use super::super::certified::Certified;
use super::account::{self, StoredAccount};
use super::dossier::{self, Dossier};
use super::former::Former;
use super::status::Status;
use super::transport::Transport;

/// What autocert starts from.
pub struct PreparedAutocert {
    pub settings: Autocert,
    pub store: Arc<dyn Store>,
    /// In the order of the settings.
    pub issuers: Vec<PreparedIssuer>,
    /// The managed names, with what the store knows of them.
    pub names: Vec<(ServerName, Dossier)>,
}

/// An issuer and how to reach it.
#[derive(Clone)]
pub struct PreparedIssuer {
    pub issuer: IssuerConfig,
    pub transport: Transport,
    /// PEM: what is trusted besides the system's roots, as it was read.
    pub trusted_roots: Vec<u8>,
    /// The account that is stored. One that cannot be read is told when it is needed.
    pub account: Option<StoredAccount>,
}

impl PreparedIssuer {
    /// Reads the account that is stored.
    pub fn read_account(&mut self, store: &dyn Store) {
        let key = layout::issuer_key(&self.issuer.directory);
        let email = self.issuer.email.as_deref();
        self.account = account::find(store, &key, email).unwrap_or_default();
    }
}

impl PreparedAutocert {
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        directories(&self.settings)
    }
}

fn directories(settings: &Autocert) -> impl Iterator<Item = &str> {
    settings.issuers.iter().map(|issuer| issuer.directory.as_str())
}

/// Reads what the store knows of the managed names; nothing there is changed, and nothing is asked of a CA.
///
/// # Errors
/// If a CA could not be trusted, or two could not be told apart.
pub fn prepare_autocert(
    settings: &Autocert,
    names: Vec<ServerName>,
    read_store: bool,
    warnings: &mut Vec<String>,
) -> Result<PreparedAutocert, Problem> {
    let mut issuers = prepare_issuers(settings, warnings)?;
    if settings.on_kubernetes {
        warnings.push(format!(
            "{} is a directory of this node alone and Kubernetes is around: several replicas would each order for themselves; consider cert-manager there",
            settings.dir.display()
        ));
    }
    let store: Arc<dyn Store> = Arc::new(Directory::new(&settings.dir));
    let names = if read_store {
        for issuer in &mut issuers {
            issuer.read_account(&*store);
        }
        stored_names(&*store, settings, names, warnings)
    } else {
        let nothing = |name| {
            let dossier = Dossier::nothing(&name, directories(settings));
            (name, dossier)
        };
        names.into_iter().map(nothing).collect()
    };
    Ok(PreparedAutocert { settings: settings.clone(), store, issuers, names })
}

fn prepare_issuers(
    settings: &Autocert,
    warnings: &mut Vec<String>,
) -> Result<Vec<PreparedIssuer>, Problem> {
    /// A bundle of all public roots is half of that.
    const LONGEST_ROOTS: usize = 1 << 20;
    let problem =
        |key: &str, what: String, remedy: &str| Problem::new(&Origin::Default, key, what, remedy);
    let mut prepared: Vec<PreparedIssuer> = Vec::new();
    let mut places = HashSet::new();
    for issuer in &settings.issuers {
        if !places.insert(layout::issuer_key(&issuer.directory)) {
            let what =
                format!("{} has the same place in the store as another CA", issuer.directory);
            return Err(problem("autocert_ca", what, "keep one of them"));
        }
        let before = prepared.iter().find(|one| one.issuer.trusted_ca == issuer.trusted_ca);
        if let Some(before) = before.cloned() {
            prepared.push(PreparedIssuer { issuer: issuer.clone(), ..before });
            continue;
        }
        let trusted_roots = match &issuer.trusted_ca {
            TrustedCa::None => Vec::new(),
            TrustedCa::Pem(pem) => pem.clone(),
            TrustedCa::File(path) => file::read(path, LONGEST_ROOTS).map_err(|error| {
                let remedy = "name a PEM file that ringgate's user may read";
                problem("autocert_trusted_ca_file", error.to_string(), remedy)
            })?,
        };
        let (transport, notes) = Transport::new(&trusted_roots, settings.proxy.clone())
            .map_err(|what| problem("autocert", what, "without roots no CA can be trusted"))?;
        warnings.extend(notes);
        prepared.push(PreparedIssuer {
            issuer: issuer.clone(),
            transport,
            trusted_roots,
            account: None,
        });
    }
    Ok(prepared)
}

/// The names with what the store knows of them.
pub fn stored_names(
    store: &dyn Store,
    settings: &Autocert,
    names: Vec<ServerName>,
    warnings: &mut Vec<String>,
) -> Vec<(ServerName, Dossier)> {
    let former = Former::look(store, directories(settings));
    let mut unreadable = 0;
    let names = names.into_iter().map(|name| {
        let dossier = read_dossier(store, settings, &former, &name).unwrap_or_else(|error| {
            unreadable += 1;
            if unreadable == 1 {
                warnings.push(format!("what autocert has stored cannot be read: {error}"));
            }
            Dossier::nothing(&name, directories(settings))
        });
        (name, dossier)
    });
    names.collect()
}

fn read_dossier(
    store: &dyn Store,
    settings: &Autocert,
    former: &Former,
    name: &ServerName,
) -> io::Result<Dossier> {
    let at = dossier::read(store, name, directories(settings))?;
    Ok(Dossier { at, former: former.read(store, name) })
}

/// What is stored of each managed name: for when no process is running to be asked.
pub fn stored_certificates(
    prepared: &PreparedAutocert,
) -> impl Iterator<Item = (Status, Option<Arc<Certified>>)> {
    let store = &*prepared.store;
    let former = Former::look(store, prepared.directories());
    prepared.names.iter().map(move |(name, _)| {
        let dossier = read_dossier(store, &prepared.settings, &former, name)
            .unwrap_or_else(|_| Dossier::nothing(name, prepared.directories()));
        let mut status = Status {
            name: name.to_string(),
            issuer: prepared.directories().next().map(str::to_owned),
            next: Some("when ringgate runs".into()),
            ..Status::default()
        };
        if let Some(last) = dossier.last_failure_since() {
            status.set_error(&last.what, last.remedy.as_deref(), last.at);
        }
        (status, dossier.certified().cloned())
    })
}
