"""What does a page look like that opens from the disk, without a network and without a script?"""
