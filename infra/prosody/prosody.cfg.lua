-- A Prosody of one's own on loopback, for the demo, the end-to-end tests and the benchmark.
--
--     UPWIRE_PROSODY_DATA=/some/folder prosody --config infra/prosody/prosody.cfg.lua -F
--
-- Everything that differs between uses is an environment variable (Prosody's ENV_… globals);
-- only the folder has no default. An account is one file, and Prosody need not be told:
--
--     echo 'return { ["password"] = "secret" };' > $UPWIRE_PROSODY_DATA/localhost/accounts/juliet.dat
--
-- Plain text and readable passwords: never for a server that anyone else can reach.

local data = assert(ENV_UPWIRE_PROSODY_DATA, "UPWIRE_PROSODY_DATA: the folder for Prosody's data and pid file")

-- Where it runs
run_as_root = true
pidfile = data .. "/prosody.pid"
data_path = data
log = { { levels = { min = ENV_UPWIRE_PROSODY_LOG or "info" }, to = "console" } }

-- Where it listens
certificates = data -- none, but Prosody wants a folder
interfaces = { "127.0.0.1" }
c2s_ports = { tonumber(ENV_UPWIRE_PROSODY_C2S_PORT or 5222) }
s2s_ports = {}
component_interfaces = { "127.0.0.1" }
component_ports = { tonumber(ENV_UPWIRE_PROSODY_COMPONENT_PORT or 5347) }
-- Whose connection ends when a component connects a second time: "kick_new" (Prosody's default) or "kick_old".
component_conflict_resolve = ENV_UPWIRE_PROSODY_CONFLICT or "kick_new"

-- mod_limits is not here: its 10 kB/s hold back the answers of a client, to some 200 pushes a second.
modules_enabled = { "disco", "ping", "presence", "roster", "saslauth", "smacks" }
modules_disabled = { "offline", "s2s", "tls" }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
-- Readable passwords in the account's file, so that writing that file is all it takes to make a user.
authentication = "internal_plain"
smacks_hibernation_time = tonumber(ENV_UPWIRE_PROSODY_HIBERNATION_SECONDS or 600)

-- mod_http is loaded by mod_unified_push alone.
http_interfaces = { "127.0.0.1" }
local http_port = tonumber(ENV_UPWIRE_PROSODY_HTTP_PORT or 5280)
http_ports = { http_port }
https_ports = {}

VirtualHost "localhost"

-- Components for push servers, one secret for all: notify.localhost, up1.localhost, up2.localhost …
local secret = ENV_UPWIRE_COMPONENT_SECRET or "component-secret"
Component "notify.localhost" { component_secret = secret }
for number = 1, tonumber(ENV_UPWIRE_PROSODY_COMPONENTS or 0) do
	Component("up" .. number .. ".localhost")({ component_secret = secret })
end

-- Prosody's own push server, as a peer to compare with: set the backend, "jwt" or "storage".
if ENV_UPWIRE_PROSODY_UNIFIED_PUSH then
	http_default_host = "unified-push.localhost"
	Component "unified-push.localhost" "unified_push" {
		unified_push_backend = ENV_UPWIRE_PROSODY_UNIFIED_PUSH;
		unified_push_secret = secret .. ", a secret that is long enough";
		http_external_url = "http://127.0.0.1:" .. http_port .. "/";
	}
end
