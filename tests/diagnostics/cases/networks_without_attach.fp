hosts web {
  host "localhost" { connection = local }
}

vars { nic = "eth0" }

network "gateway" {
  mode    = macvlan
  parent  = nic
  subnet  = 10.9.0.0/24
  gateway = 10.8.0.254
}

network "mtu" {
  mode   = macvlan
  parent = nic
  subnet = 10.10.0.0/24
  mtu    = -5
}

network "parent" {
  mode   = macvlan
  parent = "eth0; rm -rf /"
  subnet = 10.11.0.0/24
}

network "vlan" {
  mode   = bridge
  parent = "a-link-of-15-ch"
  subnet = 10.12.0.0/24
  vlan   = 7000
}

network "fine" {
  mode    = macvlan
  parent  = nic
  subnet  = 10.13.0.0/24
  gateway = 10.13.0.1
}

network "of each host" {
  mode   = macvlan
  parent = host.name
  subnet = 10.14.0.0/24
}

play "web" on hosts.web {
  directory "/srv/a"
}
