hosts web {
  host "-oProxyCommand=touch x"
  host "a;id"
  host "a\nb"
  host "$(id)"
  host "ok" { address = "-oProxyCommand=id"  user = "-l" }
  host "port" { port = 70000 }
  host "how" { connection = telnet }
}

play "web" on hosts.web {
  directory "/srv/a"
}
