hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  command ["true"] { timeout = 1.5h }
  command ["true"] { timeout = 0.25s }
  command ["true"] { timeout = 1.0001s }
}
