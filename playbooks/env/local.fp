# One bare machine: it is its own docker host.

hosts docker {
  host "localhost" { connection = local }
}

hosts balancers {}   # none: visitors talk to the nodes
hosts log_stores {}  # none: access logs stay where they are

vars {
  # Nodes hang on the machine's own network card, in a network that only this machine knows: the shim leads there.
  web_parent  = facts.default_interface
  web_subnet  = 10.77.0.0/24
  web_gateway = null
  web_pool    = 10.77.0.10 - 10.77.0.200
  web_mtu     = null  # the network card's own

  # In production: { type = "nfs"  from = "store:/export/webdata"  options = ["ro", "hard"] }
  shares       = {
    fanliweb = { type = "bind"  from = "/data/store/fanliweb"  options = [] }
    webdata  = { type = "bind"  from = "/data/store/webdata"  options = [] }
  }
  sample_pages = true
  show_errors  = true
}
