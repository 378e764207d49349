"""`ragpair demo`: a customer-service chain that recalls from Qdrant, reranks, and answers.

`helpdesk.py` holds the questions and two numbers, `chains.py` the chain in either framework, `show.py` what one sees.
"""
