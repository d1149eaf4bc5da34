---
- hosts: web
  become: yes
  tasks:
    - name: make a folder
      file:
        path: /srv/a
        state: directory
