-- The Prosody of infra/compose.yaml: one domain, its component for pushes, and TLS for its clients.

local data = ENV_PROSODY_DATA or "/var/lib/prosody"
local domain = assert(ENV_PROSODY_DOMAIN, "PROSODY_DOMAIN: the domain of the accounts")
local component = assert(ENV_PROSODY_COMPONENT, "PROSODY_COMPONENT: the push server's name")
local secret_file = assert(ENV_PROSODY_SECRET_FILE, "PROSODY_SECRET_FILE: the component's secret")
local secret = assert(io.open(secret_file)):read("*l")

pidfile = data .. "/prosody.pid"
data_path = data
log = { { levels = { min = "info" }, to = "console" } }
-- `prosodyctl --root cert import` puts them there, too.
certificates = ENV_PROSODY_CERTIFICATES or "/etc/prosody/certs"
c2s_ports = { tonumber(ENV_PROSODY_C2S_PORT or 5222) }
s2s_ports = { tonumber(ENV_PROSODY_S2S_PORT or 5269) }
-- The push server is in another container.
component_interfaces = { ENV_PROSODY_COMPONENT_INTERFACE or "*" }
component_ports = { tonumber(ENV_PROSODY_COMPONENT_PORT or 5347) }

modules_enabled = { "disco", "ping", "presence", "message", "iq", "roster", "saslauth", "tls", "dialback", "smacks", "offline" }
authentication = "internal_hashed"
c2s_require_encryption = true

VirtualHost(domain)
Component(component)
	component_secret = secret
