hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a" { timeout = "30s"  ignore_failure = 1 }
  directory "/srv/b" { when = true  when = false }
}
