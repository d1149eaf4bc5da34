hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  yum_repository "epel" { url = "x" }
}
