"""Stage 3: LoRA on the next-token loss plus λ times the loss of the decision before the CoT.

loss      the auxiliary loss, a pure function
head      the auxiliary linear head: attached, saved apart
rows      alignment queries as token ids, labels, decision position and soft target
order     near lengths within a forward pass, all kinds within a step
trainer   `PreSafeConfig`, `PreSafeTrainer`
export    a plain adapter, without a trace of the head
fit       one training from a recipe, resumable
"""
