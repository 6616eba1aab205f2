//! A system's start command and configuration on one stage.

use std::fs;
use std::path::Path;

use crate::plan::Key;
use crate::stage::Stage;
use crate::system::{System, fill};

/// The start command with everything filled in, the configuration file written.
pub fn command(system: &System, stage: &Stage, key: Key) -> Result<String, String> {
    let dir = stage.scene.dir().join(&system.name);
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let files = stage.scene.files(key);
    let bin = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = |path: &Path| path.display().to_string();
    let mut values = vec![
        ("host", stage.host.to_string()),
        ("port", system.port.to_string()),
        ("upstream", stage.upstream().to_string()),
        ("upstream_host", stage.upstream().ip().to_string()),
        ("upstream_port", stage.upstream().port().to_string()),
        ("cert", path(&files.cert)),
        ("key", path(&files.key)),
        ("combined", path(&files.combined)),
        ("dir", path(&dir)),
        ("bin", path(bin.parent().unwrap_or(&bin))),
        ("here", path(&system.here)),
    ];
    let problem = |what: String| format!("{}: {what}", system.name);
    if let Some(template) = &system.config {
        let text = fs::read_to_string(template)
            .map_err(|error| problem(format!("{}: {error}", template.display())))?;
        let config = dir.join("config");
        fs::write(&config, fill(&text, &values).map_err(problem)?)
            .map_err(|error| problem(error.to_string()))?;
        values.push(("config", path(&config)));
    }
    fill(&system.start, &values).map_err(problem)
}
