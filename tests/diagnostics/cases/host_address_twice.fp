hosts web {
  host "shop1" { address = 10.20.0.11 }
  host "shop2" { address = 10.20.0.12 }
  host "shop3" { address = 10.20.0.11  user = "deploy" }
  host "shop4" { address = 10.20.0.12  port = 2222 }
}
hosts more {
  host "shop2"
  host "www" { address = 10.20.0.11  port = 22 }
}
play "p" on hosts.web {
  command ["true"] { changes = false }
}
