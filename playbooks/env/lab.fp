# Three docker hosts on this machine, reached over SSH: first `fanli lab up 3`, in the end `fanli lab down`.
#
# For another number of hosts, `fanli lab up 5` prints where it wrote a file to copy beside this one and import instead of this block.

hosts docker {
  host "lab1" { address = 10.88.0.1  config = "/var/lib/fanli-lab/lab/ssh_config" }
  host "lab2" { address = 10.88.0.2  config = "/var/lib/fanli-lab/lab/ssh_config" }
  host "lab3" { address = 10.88.0.3  config = "/var/lib/fanli-lab/lab/ssh_config" }
}

# HAProxy listens on port 80 of the first.
hosts balancers {
  host "lab1"
}

# The others store copies of their access logs on the third.
hosts log_stores {
  host "lab3"
}

vars {
  log_store = "rsync://10.88.0.3/weblogs"
  proxies   = [10.88.0.1]

  # Hosts and nodes share one network, as they do in the data centre; this machine is its gateway.
  web_parent  = "eth0"
  web_subnet  = 10.88.0.0/16
  web_gateway = 10.88.255.254
  web_pool    = 10.88.8.10 - 10.88.8.200
  web_mtu     = 1500

  shares       = {
    fanliweb = { type = "bind"  from = "/data/store/fanliweb"  options = [] }
    webdata  = { type = "bind"  from = "/data/store/webdata"  options = [] }
  }
  sample_pages = true
  show_errors  = true
}
